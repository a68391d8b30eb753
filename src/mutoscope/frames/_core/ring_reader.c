// The consumer's side of the ring: pin, full fence, check; commit through the account that one selector word makes valid.
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>

#define DEFERRED 1024
#define SPIN_LIMIT_NS 40000
#define SPIN_PAUSE 32
#define LOG_STEP 128 // entries of the log between two rings of the owner's bell

typedef struct {
  ring_control *control;
  ring_row *row;
  uint32_t row_index, policy, on_full, leases;
  int bell, producer_bell, owner_bell, owner_pidfd, interrupt;
  int waiter;              // epoll over the bell (edges, so that it need not be read), the owner and the caller's own descriptor
  int row_bells[MAX_ROWS]; // share only
  uint64_t position;       // every: the next id to deliver; share: where the search for a free one begins
  uint64_t generation;     // share: of the last search
  int64_t period_ns, due_ns, looked_ns, mean_wait_ns;
  int may_spin, no_spin, drains;
  uint32_t deferred_count, hand_count, inherited_count;
  ring_range deferred[DEFERRED]; // dropped ranges above the cursor: they wait for the commit below them
  uint64_t hand[MAX_PINS];       // share: taken and not committed
  uint64_t inherited[MAX_PINS];  // share: taken by the predecessor
} ring_reader;

typedef struct {
  uint32_t slot, pin;
  uint64_t gap_first, gap_count; // what is lost just before this frame
  frame_header header;
} ring_delivery;

// ---------------------------------------------------------------- account

// Make (cursor, done, dropped, …) valid in one step: whoever dies here leaves the old or the new account, never a mixture.
static void put_account(ring_row *row, const uint64_t values[5]) {
  uint64_t selector = GET(row->selector);
  ring_account *a = &row->accounts[(selector + 1) & 1];
  PUT(a->cursor, values[0]);
  PUT(a->done, values[1]);
  PUT(a->dropped, values[2]);
  PUT(a->ranges, values[3]);
  SHOW(a->last_id, values[4]);
  KILL_POINT("ring.commit.prepared");
  SHOW(row->selector, selector + 1);
  KILL_POINT("ring.commit.flipped");
}

static void notify_producer(ring_reader *r) {
  FULL_FENCE();
  if (GET(r->control->producer_sleeping)) ring_one(r->producer_bell);
}

static void log_range(ring_row *row, uint64_t account[5], uint64_t first, uint64_t count) {
  ring_range *entry = &row->log[account[3] % LOG_RANGES];
  PUT(entry->first, first);
  SHOW(entry->count, count);
  account[2] += count;
  account[3] += 1;
}

static void forget_deferred(ring_reader *r, uint32_t count) {
  r->deferred_count -= count;
  memmove(r->deferred, r->deferred + count, r->deferred_count * sizeof r->deferred[0]);
}

// True when one more range would be written over one that the owner is to read.
static int log_is_full(ring_reader *r) {
  uint64_t account[5];
  if (!GET(r->row->log_kept)) return 0;
  read_account(r->row, account);
  return account[3] + r->deferred_count + 1 - SEE(r->row->log_read) >= LOG_RANGES;
}

// Move the cursor to `cursor`, then on over dropped ranges that follow it.
static void move_cursor(ring_reader *r, uint64_t cursor) {
  uint64_t account[5];
  read_account(r->row, account);
  uint64_t dropped_before = account[2], from = account[0];
  uint32_t used = 0;
  while (used < r->deferred_count) {
    uint64_t first = GET(r->deferred[used].first), count = GET(r->deferred[used].count);
    if (first > cursor) break;
    log_range(r->row, account, first, count);
    if (first + count > cursor) cursor = first + count;
    used++;
  }
  account[1] += cursor - from - (account[2] - dropped_before);
  account[0] = cursor;
  put_account(r->row, account);
  uint64_t waiting = account[3] - GET(r->row->log_read);
  if (used && GET(r->row->log_kept) && waiting >= LOG_RANGES / 2 && account[3] / LOG_STEP != (account[3] - used) / LOG_STEP)
    ring_one(r->owner_bell);
  forget_deferred(r, used);
  notify_producer(r);
}

// ---------------------------------------------------------------- pins

static int free_pin(ring_reader *r) {
  for (uint32_t k = 0; k < r->leases; k++)
    if (SEE(r->row->pins[k]) == 0) return (int)k;
  return -1;
}

// Pin `slot` and check that it still holds frame `id`. Without the full fence the producer and we may miss each other.
static int pin(ring_reader *r, int k, uint32_t slot, uint64_t id) {
  PUT(r->row->pins[k], slot + 1);
  KILL_POINT("ring.next.pinned");
  FULL_FENCE();
  if (SEE(slot_at(r->control, slot)->sequence) == id) return 1;
  SHOW(r->row->pins[k], 0);
  return 0;
}

static int deliver(ring_reader *r, int k, uint32_t slot, ring_delivery *out) {
  KILL_POINT("ring.next.checked");
  out->slot = slot;
  out->pin = (uint32_t)k;
  out->header = slot_at(r->control, slot)->header;
  SHOW(r->row->progress, GET(r->row->progress) + 1);
  return RING_OK;
}

// ---------------------------------------------------------------- policies

static int detach(ring_reader *r, ring_delivery *out) {
  SHOW(r->row->detached, 1);
  notify_producer(r);
  out->gap_first = row_cursor(r->row);
  out->gap_count = SEE(r->control->head) + 1 - out->gap_first;
  return RING_LOST;
}

static int take_every(ring_reader *r, ring_delivery *out) {
  ring_control *c = r->control;
  uint64_t want = r->position, head = SEE(c->head);
  if (GET(r->row->detached)) return detach(r, out);
  if (want > head) return RING_WAIT;
  uint64_t limit = GET(r->row->lag_limit);
  if (r->on_full == ON_FULL_DETACH && limit && head + 1 - row_cursor(r->row) > limit) return detach(r, out);
  int k = free_pin(r);
  if (k < 0 || (r->on_full == ON_FULL_DROP && r->deferred_count == DEFERRED)) return RING_LIMIT;
  out->gap_first = want;
  out->gap_count = 0;
  int tries = 0;
  int64_t slot = -1;
  for (; want <= head; want++, head = SEE(c->head)) {
    slot = slot_of(c, want);
    if (slot >= 0 && pin(r, k, (uint32_t)slot, want)) break;
    if (r->on_full == ON_FULL_DETACH) return detach(r, out);
    if (r->on_full == ON_FULL_BLOCK) {
      // the producer looks at this slot just now and will put it back; when it died doing so, its owner does
      if (slot >= 0 && SEE(slot_at(c, (uint32_t)slot)->sequence) == 0) {
        if (++tries > 1000) return RING_WAIT;
        sched_yield();
        want--;
        continue;
      }
      out->gap_count = 1;
      return RING_LOST;
    }
  }
  out->gap_count = want - out->gap_first;
  if (out->gap_count && log_is_full(r)) { // what is lost meanwhile makes this range longer
    SHOW(r->row->pins[k], 0);
    notify_producer(r);
    ring_one(r->owner_bell);
    out->gap_count = 0;
    return RING_WAIT;
  }
  if (out->gap_count) {
    ring_range *range = &r->deferred[r->deferred_count++];
    PUT(range->first, out->gap_first);
    PUT(range->count, out->gap_count);
    r->position = want;
    if (row_cursor(r->row) == out->gap_first) move_cursor(r, out->gap_first);
  }
  if (want > head) return RING_WAIT; // cannot be while the newest frame is never taken
  r->position = want + 1;
  return deliver(r, k, (uint32_t)slot, out);
}

static int take_latest(ring_reader *r, ring_delivery *out) {
  ring_control *c = r->control;
  if (r->period_ns && monotonic_now() < r->due_ns) return RING_WAIT;
  int k = free_pin(r);
  for (;;) {
    uint64_t head = SEE(c->head), last = GET(r->row->last_shown);
    if (head <= last || head < GET(r->row->start_id)) return RING_WAIT;
    if (k < 0) return RING_LIMIT;
    int64_t slot = slot_of(c, head);
    if (slot < 0 || !pin(r, k, (uint32_t)slot, head)) continue; // a newer one is there by now
    uint64_t from = last ? last + 1 : GET(r->row->start_id);
    out->gap_first = from;
    out->gap_count = head - from;
    if (r->period_ns) r->due_ns = monotonic_now() + r->period_ns;
    PUT(r->row->shown, GET(r->row->shown) + 1);
    SHOW(r->row->last_shown, head);
    return deliver(r, k, (uint32_t)slot, out);
  }
}

static int take_share(ring_reader *r, ring_delivery *out) {
  ring_control *c = r->control;
  uint32_t group = GET(r->row->group);
  ring_group *g = group_at(c, group);
  out->gap_count = 0;
  int k = free_pin(r);
  if (k < 0 || r->hand_count >= r->leases) {
    // say so only when there is something that could be had
    return r->inherited_count || atomic_load(&g->cursor) <= SEE(c->head) ? RING_LIMIT : RING_WAIT;
  }
  while (r->inherited_count) {
    uint64_t id = r->inherited[0];
    memmove(r->inherited, r->inherited + 1, --r->inherited_count * sizeof id);
    int64_t slot = slot_of(c, id);
    if (atomic_load(word_at(c, group, id)) != WORD(id, WORD_TAKEN, r->row_index)) continue; // given up meanwhile
    if (slot < 0 || !pin(r, k, (uint32_t)slot, id)) continue;
    r->hand[r->hand_count++] = id;
    return deliver(r, k, (uint32_t)slot, out);
  }
  uint64_t generation = atomic_load(&g->generation), cursor = atomic_load(&g->cursor);
  if (generation != r->generation || r->position < cursor) r->position = cursor;
  r->generation = generation;
  for (uint64_t head = SEE(c->head); r->position <= head; r->position++) {
    uint64_t id = r->position;
    au64 *word = word_at(c, group, id);
    uint64_t seen = atomic_load(word);
    if (WORD_ID(seen) > id || (WORD_ID(seen) == id && WORD_STATE(seen) != WORD_FREE)) continue;
    if (!atomic_compare_exchange_strong(word, &seen, WORD(id, WORD_TAKEN, r->row_index))) continue;
    KILL_POINT("ring.share.taken");
    for (int tries = 0; tries < 1000; tries++) {
      int64_t slot = slot_of(c, id);
      if (slot < 0) break;
      if (pin(r, k, (uint32_t)slot, id)) {
        r->position++;
        r->hand[r->hand_count++] = id;
        return deliver(r, k, (uint32_t)slot, out);
      }
      sched_yield();
    }
    out->gap_first = id;
    out->gap_count = 1;
    return RING_LOST;
  }
  return RING_WAIT;
}

// True when nothing more is to be had: a reader that drains still takes what is there after the owner's death.
static int is_over(ring_reader *r) {
  uint32_t closed = GET(r->control->closed);
  if (closed == OPEN) return 0;
  return !r->drains || closed != OWNER_DIED || r->position > SEE(r->control->head);
}

static int take(ring_reader *r, ring_delivery *out) {
  if (is_over(r)) return RING_CLOSED;
  int code = r->policy == POLICY_EVERY ? take_every(r, out) : r->policy == POLICY_LATEST ? take_latest(r, out) : take_share(r, out);
  if (code == RING_OK) {
    int64_t now = monotonic_now();
    if (now - r->looked_ns > OWNER_LOOK_NS) {
      r->looked_ns = now;
      if (owner_is_dead(r->control, r->owner_pidfd) && !r->drains) {
        SHOW(r->row->pins[out->pin], 0);
        return RING_CLOSED;
      }
    }
  }
  return code;
}

// ---------------------------------------------------------------- calls from Python

MUTOSCOPE_API void mutoscope_reader_free(ring_reader *r) {
  if (r->waiter >= 0) close(r->waiter);
  free(r);
}

static int watch_fd(ring_reader *r, int fd, uint32_t events) {
  struct epoll_event event = {.events = events, .data.fd = fd};
  return epoll_ctl(r->waiter, EPOLL_CTL_ADD, fd, &event);
}

MUTOSCOPE_API ring_reader *mutoscope_reader_open(void *control, uint32_t row_index, uint32_t own_pid, const int *bells,
                                                 int64_t period_ns) {
  ring_reader *r = calloc(1, sizeof *r);
  if (r == NULL) return NULL;
  ring_control *c = control;
  ring_row *row = row_at(c, row_index);
  r->control = c, r->row = row, r->row_index = row_index;
  r->policy = GET(row->policy), r->on_full = GET(row->on_full), r->leases = GET(row->leases);
  r->owner_pidfd = bells[0], r->producer_bell = bells[1], r->owner_bell = bells[2], r->bell = bells[3], r->interrupt = -1;
  for (uint32_t k = 0; k < c->row_count; k++) r->row_bells[k] = r->policy == POLICY_SHARE ? bells[4 + k] : -1;
  r->period_ns = period_ns;
  r->looked_ns = monotonic_now();
  r->mean_wait_ns = 1000000;
  cpu_set_t cpus;
  r->may_spin = r->period_ns == 0 && sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 1;
  r->waiter = epoll_create1(EPOLL_CLOEXEC);
  if (r->waiter < 0 || watch_fd(r, r->bell, EPOLLIN | EPOLLET) || watch_fd(r, r->owner_pidfd, EPOLLIN)) {
    mutoscope_reader_free(r);
    return NULL;
  }
  r->position = row_cursor(row);
  if (r->policy == POLICY_SHARE) {
    uint32_t group = GET(row->group);
    ring_group *g = group_at(c, group);
    r->generation = atomic_load(&g->generation);
    r->position = atomic_load(&g->cursor);
    for (uint64_t id = r->position, head = SEE(c->head); id <= head && r->inherited_count < MAX_PINS; id++)
      if (atomic_load(word_at(c, group, id)) == WORD(id, WORD_TAKEN, row_index)) r->inherited[r->inherited_count++] = id;
  }
  PUT(row->sleeping, 0);
  SHOW(row->attached_pid, own_pid);
  ring_one(r->owner_bell);
  return r;
}

// Policy every: after the owner's death (not its close) go on until all that was published is taken.
MUTOSCOPE_API void mutoscope_reader_drain(ring_reader *r) { r->drains = r->policy == POLICY_EVERY; }

// 0, or an errno.
MUTOSCOPE_API int mutoscope_reader_interrupt(ring_reader *r, int fd) {
  if (r->interrupt >= 0) epoll_ctl(r->waiter, EPOLL_CTL_DEL, r->interrupt, NULL); // it may be closed already
  r->interrupt = fd;
  return fd >= 0 && watch_fd(r, fd, EPOLLIN) ? errno : 0;
}

// Never waits.
MUTOSCOPE_API int mutoscope_reader_take(ring_reader *r, ring_delivery *out) { return take(r, out); }

// As epoll_wait, with nanoseconds where the kernel has them (Linux 5.11).
static int wait_for_events(int waiter, struct epoll_event *events, int most, int64_t left_ns) {
#ifdef SYS_epoll_pwait2
  struct timespec timeout = {left_ns / 1000000000, left_ns % 1000000000};
  int ready = (int)syscall(SYS_epoll_pwait2, waiter, events, most, &timeout, NULL, 0);
  if (ready >= 0 || errno != ENOSYS) return ready;
#endif
  return epoll_wait(waiter, events, most, (int)((left_ns + 999999) / 1000000));
}

// A short spin pays when frames come in quick succession and the producer runs on another processor. On the same one it would
// only keep the producer from running.
static void spin(ring_reader *r, int64_t began, int64_t timeout_ns) {
  ring_control *c = r->control;
  int64_t until = began + (timeout_ns < SPIN_LIMIT_NS ? timeout_ns : SPIN_LIMIT_NS);
  uint64_t head = SEE(c->head);
  while (GET(c->head) == head && !GET(c->closed)) {
    if (monotonic_now() >= until || GET(c->producer_cpu) == (uint32_t)sched_getcpu()) return;
#if defined(__x86_64__) || defined(__i386__)
    for (int k = 0; k < 8; k++) __builtin_ia32_pause();
#endif
  }
}

// Waits at most timeout_ns. Goes to sleep on the bell only after a last look with the sleeping flag shown, so that a frame
// published meanwhile is either seen by that look or rings the bell.
MUTOSCOPE_API int mutoscope_reader_wait(ring_reader *r, int64_t timeout_ns, ring_delivery *out) {
  int64_t began = monotonic_now(), deadline = began + timeout_ns;
  int code = RING_WAIT;
  if (r->may_spin && r->mean_wait_ns < SPIN_LIMIT_NS && (r->no_spin == 0 || --r->no_spin == 0)) {
    spin(r, began, timeout_ns);
    code = take(r, out);
    if (code == RING_WAIT) r->no_spin = SPIN_PAUSE; // in vain: the producer is slow just now, or others need the processor
  }
  while (code == RING_WAIT) {
    int64_t now = monotonic_now(), until = deadline;
    if (r->period_ns && now < r->due_ns) { // no bell until then
      if (r->due_ns < until) until = r->due_ns;
    } else {
      PUT(r->row->sleeping, 1);
      FULL_FENCE();
      KILL_POINT("ring.wait.flagged");
      code = take(r, out);
      if (code != RING_WAIT) break;
    }
    struct epoll_event events[3];
    int ready = wait_for_events(r->waiter, events, 3, until > now ? until - now : 0);
    int error = errno, interrupted = 0;
    PUT(r->row->sleeping, 0);
    for (int k = 0; k < ready; k++) {
      if (events[k].data.fd == r->owner_pidfd) owner_is_dead(r->control, r->owner_pidfd);
      interrupted |= events[k].data.fd == r->interrupt;
    }
    code = take(r, out);
    if (code != RING_WAIT) break;
    if (interrupted) code = RING_INTERRUPTED;
    else if (ready < 0 && error == EINTR) code = RING_SIGNAL;
    else if (monotonic_now() >= deadline) code = RING_TIMEOUT;
  }
  PUT(r->row->sleeping, 0);
  r->mean_wait_ns += (monotonic_now() - began - r->mean_wait_ns) / 8;
  return code;
}

MUTOSCOPE_API void mutoscope_reader_release(ring_reader *r, uint32_t k) {
  SHOW(r->row->pins[k], 0);
  KILL_POINT("ring.release.unpinned");
  notify_producer(r);
}

// Share: what this member holds up to `id` is done. The account is prepared first, then the frame's own word is changed, then
// the account becomes valid; when we die between, the owner sees by the word whether the frame was done (ring.c, reconcile).
static void commit_share(ring_reader *r, uint64_t id) {
  ring_control *c = r->control;
  uint32_t group = GET(r->row->group), kept = 0;
  for (uint32_t k = 0; k < r->hand_count; k++) {
    uint64_t held = r->hand[k];
    if (held > id) {
      r->hand[kept++] = held;
      continue;
    }
    uint64_t selector = GET(r->row->selector), account[5];
    read_account(r->row, account);
    ring_account *next = &r->row->accounts[(selector + 1) & 1];
    PUT(next->cursor, account[0]);
    PUT(next->done, account[1] + 1);
    PUT(next->dropped, account[2]);
    PUT(next->ranges, account[3]);
    SHOW(next->last_id, held);
    KILL_POINT("ring.share.prepared");
    uint64_t taken = WORD(held, WORD_TAKEN, r->row_index);
    if (!atomic_compare_exchange_strong(word_at(c, group, held), &taken, WORD(held, WORD_DONE, r->row_index))) continue;
    KILL_POINT("ring.share.done");
    SHOW(r->row->selector, selector + 1);
    KILL_POINT("ring.share.flipped");
  }
  r->hand_count = kept;
  advance_group(c, group);
  KILL_POINT("ring.share.advanced");
  notify_producer(r);
}

MUTOSCOPE_API int mutoscope_reader_commit(ring_reader *r, uint64_t id) {
  if (r->policy == POLICY_LATEST) return RING_OK;
  uint32_t closed = GET(r->control->closed);
  if (closed && !(r->drains && closed == OWNER_DIED)) return RING_CLOSED;
  if (r->policy == POLICY_SHARE) {
    commit_share(r, id);
  } else {
    if (id >= r->position) return RING_INVALID;
    if (id >= row_cursor(r->row)) move_cursor(r, id + 1);
  }
  SHOW(r->row->progress, GET(r->row->progress) + 1);
  return RING_OK;
}

// out: cursor, done, dropped, next id to deliver, newest id, pins held
MUTOSCOPE_API void mutoscope_reader_look(ring_reader *r, uint64_t out[6]) {
  uint64_t account[5], pins = 0;
  read_account(r->row, account);
  for (uint32_t k = 0; k < r->leases; k++) pins += SEE(r->row->pins[k]) != 0;
  out[0] = r->policy == POLICY_SHARE    ? atomic_load(&group_at(r->control, GET(r->row->group))->cursor)
           : r->policy == POLICY_LATEST ? GET(r->row->last_shown) + 1
                                        : account[0];
  out[1] = account[1], out[2] = account[2], out[3] = r->position, out[4] = SEE(r->control->head), out[5] = pins;
}

// Give the row back: nothing is held for it any longer, only its pins stay until their views are gone.
MUTOSCOPE_API void mutoscope_reader_leave(ring_reader *r) {
  ring_control *c = r->control;
  if (r->policy == POLICY_SHARE) {
    uint32_t group = GET(r->row->group);
    for (uint64_t id = atomic_load(&group_at(c, group)->cursor), head = SEE(c->head); id <= head; id++) {
      uint64_t taken = WORD(id, WORD_TAKEN, r->row_index);
      atomic_compare_exchange_strong(word_at(c, group, id), &taken, WORD(id, WORD_FREE, r->row_index));
    }
    r->hand_count = 0;
    atomic_fetch_add(&group_at(c, group)->generation, 1);
  }
  PUT(r->row->end_id, SEE(c->head) + 1);
  SHOW(r->row->leaving, 1);
  notify_producer(r);
  if (r->policy == POLICY_SHARE)
    for (uint32_t k = 0; k < c->row_count; k++) ring_one(r->row_bells[k]);
  ring_one(r->owner_bell);
}

// The row goes to another process, which has not opened it yet.
MUTOSCOPE_API void mutoscope_reader_hand_over(ring_reader *r) { SHOW(r->row->attached_pid, 0); }
