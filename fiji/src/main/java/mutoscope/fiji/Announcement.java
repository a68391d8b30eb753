package mutoscope.fiji;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.FileAlreadyExistsException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardCopyOption;
import java.nio.file.attribute.PosixFileAttributes;
import java.nio.file.attribute.PosixFilePermission;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Set;

/**
 * The file by which programs of the same user find this receiver: {@code imagej-<pid>.json} in Mutoscope's private folder, in the
 * form of Python's {@code mutoscope.viewers.announce}.
 */
final class Announcement {
    private static final String KIND = "imagej";

    private final Path file;

    private Announcement(Path file) {
        this.file = file;
    }

    static Announcement publish(String name, String address, String token, String starter) throws IOException {
        Path self = Paths.get("/proc/self");
        if (!Files.isDirectory(self)) {
            throw new IOException("the live receiver runs on Linux only so far");
        }
        String pid = new File("/proc/self").getCanonicalFile().getName();
        String facts = new String(Files.readAllBytes(self.resolve("stat")), StandardCharsets.UTF_8);
        String started = facts.substring(facts.lastIndexOf(')') + 2).split(" ")[19];
        String text = "{\"kind\":" + quoted(KIND) + ",\"name\":" + quoted(name) + ",\"address\":" + quoted(address) + ",\"link\":"
            + quoted(address) + ",\"token\":" + quoted(token) + ",\"pid\":" + pid + ",\"started\":" + started
            + ",\"viewer\":" + quoted(starter) + "}";
        Path file = folder().resolve(KIND + "-" + pid + ".json");
        Path partial = file.resolveSibling("." + file.getFileName() + "." + pid);
        Files.deleteIfExists(partial);
        Files.createFile(partial, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rw-------")));
        Files.write(partial, text.getBytes(StandardCharsets.UTF_8));
        Files.move(partial, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        return new Announcement(file);
    }

    /** Takes it back; twice is fine. */
    void withdraw() {
        try {
            Files.deleteIfExists(file);
        } catch (IOException error) {
            System.err.println("Mutoscope: " + file + " could not be removed: " + error);
        }
    }

    /** The folder, made if need be; nobody else can look into it. */
    private static Path folder() throws IOException {
        String runtime = System.getenv("XDG_RUNTIME_DIR");
        Path folder = runtime != null && new File(runtime).isDirectory()
            ? Paths.get(runtime, "mutoscope") : temporary().resolve("mutoscope-" + user());
        try {
            Files.createDirectory(folder, PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------")));
        } catch (FileAlreadyExistsException error) {
            // looked at below, whoever made it
        }
        PosixFileAttributes found = Files.readAttributes(folder, PosixFileAttributes.class, LinkOption.NOFOLLOW_LINKS);
        Set<PosixFilePermission> all = found.permissions();
        boolean ours = Files.getAttribute(folder, "unix:uid", LinkOption.NOFOLLOW_LINKS).equals(user());
        if (!found.isDirectory() || !ours || !PosixFilePermissions.toString(all).endsWith("------")) {
            throw new IOException(folder + " is not a folder of yours alone: remove it");
        }
        return folder;
    }

    private static Object user() throws IOException {
        return Files.getAttribute(Paths.get("/proc/self"), "unix:uid");
    }

    /** As Python's {@code tempfile.gettempdir} finds it. */
    private static Path temporary() throws IOException {
        for (String name : new String[] {"TMPDIR", "TEMP", "TMP"}) {
            String folder = System.getenv(name);
            if (folder != null && new File(folder).isDirectory() && new File(folder).canWrite()) {
                return Paths.get(folder);
            }
        }
        return Paths.get("/tmp");
    }

    private static String quoted(String text) {
        StringBuilder out = new StringBuilder("\"");
        for (char c : text.toCharArray()) {
            if (c == '"' || c == '\\') {
                out.append('\\').append(c);
            } else if (c < ' ' || Character.isSurrogate(c)) {
                out.append(String.format("\\u%04x", (int) c));
            } else {
                out.append(c);
            }
        }
        return out.append('"').toString();
    }
}
