// Kill points, and the native thread of a worker: it writes the heartbeat and watches the lifeline while Python is busy.
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef MUTOSCOPE_KILL_POINTS
// MUTOSCOPE_KILL_POINT=name or name:n ends the process with SIGKILL at the n-th pass of that point.
void mutoscope_kill_point(const char *name) {
  static const char *wanted;
  static size_t length;
  static _Atomic long remaining = -1;
  if (wanted == NULL) {
    const char *value = getenv("MUTOSCOPE_KILL_POINT");
    const char *colon = value ? strrchr(value, ':') : NULL;
    length = value == NULL ? 0 : colon ? (size_t)(colon - value) : strlen(value);
    atomic_store(&remaining, colon ? atol(colon + 1) : 1);
    wanted = value ? value : "";
  }
  if (length == 0 || strlen(name) != length || strncmp(name, wanted, length) != 0) return;
  if (atomic_fetch_sub(&remaining, 1) == 1) kill(getpid(), SIGKILL);
}
#endif

typedef struct {
  int lifeline;               // readable (hung up) when the supervisor is gone
  int bell;                   // eventfd, written once then, so that the main thread wakes
  _Atomic uint64_t *heartbeat; // CLOCK_MONOTONIC in ns
  int64_t period_ns;
  int64_t grace_ns;           // after that the process ends whatever Python does
} guard;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void *guard_run(void *argument) {
  guard *g = argument;
  struct pollfd watched = {.fd = g->lifeline, .events = POLLIN};
  uint64_t gone = 0;
  for (;;) {
    uint64_t now = now_ns();
    atomic_store_explicit(g->heartbeat, now, memory_order_relaxed);
    if (gone && now - gone >= (uint64_t)g->grace_ns) {
      kill(0, SIGKILL);  // with everyone whom this worker started: it leads a process group of its own
      _exit(75);
    }
    struct timespec wait = {g->period_ns / 1000000000, g->period_ns % 1000000000};
    if (gone) {
      wait = (struct timespec){0, 20000000};
      nanosleep(&wait, NULL);
      continue;
    }
    int ready = ppoll(&watched, 1, &wait, NULL);
    if (ready > 0) {
      gone = now_ns();
      uint64_t one = 1;
      if (write(g->bell, &one, sizeof one) < 0) _exit(75);
    } else if (ready < 0 && errno != EINTR) {
      _exit(75);
    }
  }
  return NULL;
}

// Start the guard thread. It runs until the process ends and takes no signals. Returns 0, or an errno.
MUTOSCOPE_API int mutoscope_guard_start(int lifeline, int bell, void *heartbeat, int64_t period_ns, int64_t grace_ns) {
  guard *g = malloc(sizeof *g);
  if (g == NULL) return ENOMEM;
  *g = (guard){lifeline, bell, heartbeat, period_ns, grace_ns};
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_t thread;
  int failed = pthread_create(&thread, NULL, guard_run, g);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (failed) {
    free(g);
    return failed;
  }
  pthread_detach(thread);
  return 0;
}
