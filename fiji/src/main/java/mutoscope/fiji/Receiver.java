package mutoscope.fiji;

import ij.IJ;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Listens on the loopback interface for clients that know the token; docs/fiji-protocol.md says what they may say. Every message
 * is bounded before anything is allocated for it; a stranger may send one small one.
 */
final class Receiver {
    static final int VERSION = 2;
    static final int MAX_MESSAGE = 32 << 20;
    static final long MAX_BEHIND = Integer.MAX_VALUE;
    private static final int MAX_HELLO = 4096;
    private static final int MAX_CLIENTS = 32;
    private static final int MAX_GREETING = 16;
    private static final int HELLO_MS = 5000;
    private static final long LOG_EVERY_MS = 10_000;

    private final ServerSocket listener;
    private final Announcement announcement;
    private final byte[] token;
    private final boolean owned;
    private final Thread hook;
    private final Set<Socket> clients = new HashSet<>();
    /** Those who have not shown the token yet, the oldest first. */
    private final Set<Socket> greeting = new LinkedHashSet<>();
    private final Client.Left left = new Client.Left();
    private final AtomicInteger numbers = new AtomicInteger();
    private final AtomicLong strangers = new AtomicLong();
    private long loggedAt;
    private volatile boolean stopped;

    private Receiver(String starter) throws IOException {
        owned = starter != null;
        byte[] random = new byte[32];
        new SecureRandom().nextBytes(random);
        StringBuilder hex = new StringBuilder();
        for (byte each : random) {
            hex.append(String.format("%02x", each & 0xff));
        }
        token = hex.toString().getBytes(StandardCharsets.US_ASCII);
        listener = new ServerSocket(0, 16, InetAddress.getByAddress(new byte[] {127, 0, 0, 1}));
        try {
            announcement = Announcement.publish("ImageJ " + IJ.getVersion(), address(), hex.toString(), owned ? starter : "");
        } catch (IOException | RuntimeException error) {
            listener.close();
            throw error;
        }
        hook = new Thread(announcement::withdraw, "mutoscope-withdraw");
        Runtime.getRuntime().addShutdownHook(hook);
    }

    /**
     * Listens, and announces itself.
     *
     * @param starter the name of the program that has started this ImageJ, and may end it; null if a person has
     */
    static Receiver start(String starter) throws IOException {
        Receiver receiver = new Receiver(starter);
        receiver.thread(receiver::accept, "mutoscope-receiver");
        return receiver;
    }

    String address() {
        return "tcp://127.0.0.1:" + listener.getLocalPort();
    }

    /** Lets nobody in any longer, and lets go of those who are in. Their windows stay. */
    void stop() {
        stopped = true;
        announcement.withdraw();
        try {
            Runtime.getRuntime().removeShutdownHook(hook);
        } catch (IllegalStateException error) {
            // the virtual machine is ending, and the hook runs
        }
        close(listener);
        synchronized (clients) {
            clients.forEach(Receiver::close);
            greeting.forEach(Receiver::close);
        }
    }

    private static void close(java.io.Closeable each) {
        try {
            each.close();
        } catch (IOException error) {
            System.err.println("Mutoscope: " + error);
        }
    }

    private void thread(Runnable work, String name) {
        Thread thread = new Thread(work, name);
        thread.setDaemon(true);
        thread.start();
    }

    private void accept() {
        while (!stopped) {
            Socket socket;
            try {
                socket = listener.accept();
            } catch (IOException error) {
                if (!stopped) {
                    log("the live receiver ends: " + error);
                    stop();
                }
                return;
            }
            synchronized (clients) {
                if (greeting.size() >= MAX_GREETING) {
                    Socket oldest = greeting.iterator().next();
                    greeting.remove(oldest);
                    close(oldest);
                }
                greeting.add(socket);
            }
            thread(() -> serve(socket), "mutoscope-client");
        }
    }

    private void serve(Socket socket) {
        Client client = null;
        try {
            socket.setTcpNoDelay(true);
            Timely timely = new Timely(socket);
            DataInputStream in = new DataInputStream(new BufferedInputStream(timely, 1 << 16));
            DataOutputStream out = new DataOutputStream(new BufferedOutputStream(socket.getOutputStream(), 1 << 16));
            if (!greet(socket, timely, in, out)) {
                return;
            }
            client = new Client(owned, numbers.incrementAndGet() + ":", left);
            Client told = client;
            thread(() -> tell(told, socket, out), "mutoscope-notices");
            while (serveOne(client, in, out)) {
                // one request after the other
            }
        } catch (EOFException | SocketException error) {
            // the client has left, or was told to
        } catch (IOException error) {
            log("a client's connection failed: " + error);
        } finally {
            if (client != null) {
                client.leave();
            }
            synchronized (clients) {
                greeting.remove(socket);
                clients.remove(socket);
            }
            close(socket);
        }
    }

    /** Tells a client that there are news, once until it asks for them. */
    private static void tell(Client client, Socket socket, DataOutputStream out) {
        try {
            while (client.awaitNotice()) {
                send(out, 0, new Client.Answer("notice"));
            }
        } catch (InterruptedException | IOException error) {
            close(socket); // whose thread ends then, too
        }
    }

    /** Lets a client in that knows the token and speaks this version. */
    private boolean greet(Socket socket, Timely timely, DataInputStream in, DataOutputStream out) throws IOException {
        Request hello;
        String given;
        long version;
        try {
            int length = Integer.reverseBytes(in.readInt());
            int behind = Integer.reverseBytes(in.readInt());
            if (length < 1 || length > MAX_HELLO || behind != 0) {
                stranger("no hello");
                return false;
            }
            hello = read(in, length);
            if (!hello.type.equals("hello")) {
                stranger("no hello");
                return false;
            }
            version = hello.whole("version", 0, Integer.MAX_VALUE);
            given = hello.text("token", 1024);
        } catch (Msgpack.MalformedException | Request.RefusedException | IOException error) {
            stranger(String.valueOf(error.getMessage()));
            return false;
        }
        if (!MessageDigest.isEqual(token, given.getBytes(StandardCharsets.UTF_8))) {
            send(out, hello.id, error("token", "this is not the token of this receiver"));
            stranger("a wrong token");
            return false;
        }
        if (version != VERSION) {
            send(out, hello.id, error("version", "this receiver speaks version " + VERSION + " of the protocol, not " + version
                + ": mutoscope fiji install brings the one that fits"));
            return false;
        }
        synchronized (clients) {
            if (clients.size() >= MAX_CLIENTS || !greeting.remove(socket)) {
                send(out, hello.id, error("refused", "there are " + MAX_CLIENTS + " clients already"));
                return false;
            }
            clients.add(socket);
        }
        timely.greeted();
        send(out, hello.id, new Client.Answer("welcome").with("version", VERSION).with("imagej", IJ.getVersion())
            .with("java", System.getProperty("java.version")).with("owned", owned)
            .with("max_message", MAX_MESSAGE).with("max_behind", MAX_BEHIND));
        return true;
    }

    /** What comes from a socket: until it has greeted, for no longer than a greeting may take, however slowly it comes. */
    private static final class Timely extends FilterInputStream {
        private final Socket socket;
        private final long end = System.nanoTime() + TimeUnit.MILLISECONDS.toNanos(HELLO_MS);
        private boolean greeted;

        Timely(Socket socket) throws IOException {
            super(socket.getInputStream());
            this.socket = socket;
        }

        void greeted() throws IOException {
            greeted = true;
            socket.setSoTimeout(0);
        }

        @Override
        public int read(byte[] into, int at, int count) throws IOException {
            if (!greeted) {
                long left = TimeUnit.NANOSECONDS.toMillis(end - System.nanoTime());
                if (left <= 0) {
                    throw new SocketTimeoutException("no hello in time");
                }
                socket.setSoTimeout((int) left);
            }
            return super.read(into, at, count);
        }
    }

    private static Request read(InputStream in, int length) throws IOException, Msgpack.MalformedException {
        byte[] data = new byte[length];
        Buffers.readFully(in, data, length);
        return new Request(Msgpack.decode(data));
    }

    /** Serves one request; returns whether the connection goes on. */
    private boolean serveOne(Client client, DataInputStream in, DataOutputStream out) throws IOException {
        int length = Integer.reverseBytes(in.readInt());
        long behind = Integer.reverseBytes(in.readInt()) & 0xffffffffL;
        if (length < 1 || length > MAX_MESSAGE || behind > MAX_BEHIND) {
            send(out, 0, error("malformed", "a message of " + length + " bytes with " + behind + " behind it"));
            log("a client has sent what is no message; it is disconnected");
            return false;
        }
        Request request;
        try {
            request = read(in, length);
        } catch (Msgpack.MalformedException error) {
            send(out, 0, error("malformed", error.getMessage()));
            log("a client has sent what is no message (" + error.getMessage() + "); it is disconnected");
            return false;
        }
        Client.Answer answer;
        try {
            answer = client.handle(request, in, behind);
        } catch (Request.RefusedException error) {
            answer = error(error.code, error.getMessage());
        } catch (IOException error) {
            throw error;
        } catch (OutOfMemoryError error) {
            answer = error("memory", "ImageJ has no memory for this: Edit > Options > Memory & Threads says how much it may take");
        } catch (Exception | Error error) {
            error.printStackTrace();
            log(request.type + " failed: " + error);
            answer = error("failed", request.type + " failed: " + error);
        }
        send(out, request.id, answer);
        if (answer.quit) {
            stop();
            Client.end();
        }
        return !answer.quit;
    }

    private static Client.Answer error(String code, String message) {
        return new Client.Answer("error").with("code", code).with("message", String.valueOf(message));
    }

    private static void send(DataOutputStream out, long id, Client.Answer answer) throws IOException {
        byte[] message = Msgpack.encode(answer.with("id", id).fields);
        synchronized (out) {
            out.writeInt(Integer.reverseBytes(message.length));
            out.writeInt(Integer.reverseBytes((int) answer.bytesBehind()));
            out.write(message);
            answer.writeBehind(out);
            out.flush();
        }
    }

    // What is said to a person

    private void stranger(String why) {
        long count = strangers.incrementAndGet();
        synchronized (this) {
            long now = System.currentTimeMillis();
            if (now - loggedAt < LOG_EVERY_MS) {
                return;
            }
            loggedAt = now;
        }
        log("a program without the right to this receiver was turned away (" + why + "); " + count + " so far");
    }

    static void log(String text) {
        System.err.println("Mutoscope: " + text);
        IJ.log("Mutoscope: " + text);
    }
}
