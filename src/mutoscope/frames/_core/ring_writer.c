// The producer's side of the ring: take the most recently freed slot, mark it empty, full fence, scan the pins, fill, publish.
// Which slots are free is private to the producer and is found again from the control segment after its death.
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>

#define POOL_LOG_STEP 256 // entries of a pool's log between two rings of the owner's bell

enum { SLOT_USED = 0, SLOT_FREE = 1, SLOT_PARKED = 2, SLOT_CLAIMED = 3 };

typedef struct {
  ring_control *control;
  int bell, owner_bell, owner_pidfd, interrupt;
  int row_bells[MAX_ROWS];
  uint64_t epoch, floor; // no frame below the floor is still to be looked at
  int64_t looked_ns;
  uint32_t free_count, parked_count;
  uint32_t *free_slots, *parked; // stack: the most recently freed on top; free, but pinned when last seen
  uint8_t *state;
} ring_writer;

// ---------------------------------------------------------------- what readers still need

typedef struct {
  uint64_t hard, soft; // no reader that may lose nothing, or no lossless reader at all, needs a frame below
  uint32_t pools;      // bit k: pool k has members
} needs;

static int row_holds(ring_row *row, uint64_t head, uint64_t *cursor) {
  if (GET(row->policy) != POLICY_EVERY || SEE(row->leaving) || SEE(row->detached)) return 0;
  *cursor = row_cursor(row);
  uint64_t limit = GET(row->lag_limit);
  return !(GET(row->on_full) == ON_FULL_DETACH && limit && *cursor <= head && head + 1 - *cursor > limit);
}

static needs look_at_needs(ring_control *c, uint64_t head) {
  needs n = {UINT64_MAX, UINT64_MAX, 0};
  for (uint64_t active = SEE(c->active_rows); active; active &= active - 1) {
    ring_row *row = row_at(c, (uint32_t)__builtin_ctzll(active));
    uint64_t cursor;
    if (GET(row->policy) == POLICY_SHARE && !SEE(row->leaving)) n.pools |= 1u << GET(row->group);
    if (!row_holds(row, head, &cursor)) continue;
    if (cursor < n.soft) n.soft = cursor;
    if (GET(row->on_full) == ON_FULL_BLOCK && cursor < n.hard) n.hard = cursor;
  }
  return n;
}

// 0: no pool needs frame `id`; 1: one would like it; 2: one must have it.
static int pools_hold(ring_control *c, uint32_t pools, uint64_t id) {
  int most = 0;
  for (; pools; pools &= pools - 1) {
    uint32_t k = (uint32_t)__builtin_ctz(pools);
    ring_group *g = group_at(c, k);
    if (id < atomic_load(&g->cursor)) continue;
    uint64_t word = atomic_load(word_at(c, k, id));
    if (WORD_ID(word) == id && WORD_STATE(word) >= WORD_DONE) continue;
    int taken = WORD_ID(word) == id && WORD_STATE(word) == WORD_TAKEN;
    int hold = GET(g->on_full) == ON_FULL_BLOCK || taken ? 2 : 1;
    if (hold > most) most = hold;
  }
  return most;
}

static void drop_for_pool(ring_writer *w, uint32_t k, uint64_t id, uint64_t seen) {
  ring_control *c = w->control;
  ring_group *g = group_at(c, k);
  uint64_t count = GET(g->log_count);
  SHOW(g->log[count % POOL_LOG_IDS], id);
  KILL_POINT("ring.share.dropping");
  if (atomic_compare_exchange_strong(word_at(c, k, id), &seen, WORD(id, WORD_DROPPED, 0))) {
    KILL_POINT("ring.share.dropped");
    SHOW(g->log_count, count + 1);
    if ((count + 1) % POOL_LOG_STEP == 0) ring_one(w->owner_bell);
  }
}

// Take frame `id` from every pool that may lose it. 0 when a member took it meanwhile.
static int drop_for_pools(ring_writer *w, uint32_t pools, uint64_t id) {
  ring_control *c = w->control;
  for (uint32_t left = pools; left; left &= left - 1) {
    uint32_t k = (uint32_t)__builtin_ctz(left);
    ring_group *g = group_at(c, k);
    if (GET(g->on_full) == ON_FULL_BLOCK || id < atomic_load(&g->cursor)) continue;
    uint64_t word = atomic_load(word_at(c, k, id));
    if (WORD_ID(word) != id || WORD_STATE(word) == WORD_FREE) drop_for_pool(w, k, id, word);
    advance_group(c, k);
  }
  return pools_hold(c, pools, id) == 0;
}

// The claim words of a pool cover a window of ids. 0 when a pool that may lose nothing is that far behind.
static int pools_have_room(ring_writer *w, uint32_t pools, uint64_t head) {
  ring_control *c = w->control;
  for (; pools; pools &= pools - 1) {
    uint32_t k = (uint32_t)__builtin_ctz(pools);
    ring_group *g = group_at(c, k);
    for (;;) {
      uint64_t cursor = atomic_load(&g->cursor);
      if (head + 2 - cursor < c->group_words || cursor > head) break;
      if (GET(g->on_full) == ON_FULL_BLOCK) return 0;
      uint64_t word = atomic_load(word_at(c, k, cursor));
      if (WORD_ID(word) != cursor || WORD_STATE(word) < WORD_DONE) drop_for_pool(w, k, cursor, word);
      advance_group(c, k);
    }
  }
  return 1;
}

static int pinned(ring_control *c, uint32_t slot) {
  for (uint64_t active = SEE(c->active_rows); active; active &= active - 1) {
    ring_row *row = row_at(c, (uint32_t)__builtin_ctzll(active));
    uint32_t leases = GET(row->leases);
    for (uint32_t k = 0; k < leases; k++)
      if (SEE(row->pins[k]) == slot + 1) return 1;
  }
  return 0;
}

// ---------------------------------------------------------------- free slots

static void push_free(ring_writer *w, uint32_t slot) {
  w->state[slot] = SLOT_FREE;
  w->free_slots[w->free_count++] = slot;
}

static int64_t used_slot_of(ring_writer *w, uint64_t id) {
  int64_t slot = slot_of(w->control, id);
  return slot >= 0 && w->state[slot] == SLOT_USED && GET(slot_at(w->control, (uint32_t)slot)->sequence) == id ? slot : -1;
}

typedef struct {
  uint64_t sequence;
  uint32_t slot;
} aged;

static int by_age(const void *a, const void *b) {
  uint64_t x = ((const aged *)a)->sequence, y = ((const aged *)b)->sequence;
  return (x > y) - (x < y);
}

// Find out from the slots themselves what is free: after a restart, and when a reader begins at an old frame.
static int rebuild(ring_writer *w) {
  ring_control *c = w->control;
  w->epoch = SEE(c->epoch);
  uint64_t head = GET(c->head);
  aged *slots = malloc(c->slots * sizeof *slots);
  if (slots == NULL) return RING_INVALID;
  for (uint32_t k = 0; k < c->slots; k++) slots[k] = (aged){SEE(slot_at(c, k)->sequence), k};
  qsort(slots, c->slots, sizeof *slots, by_age);
  w->free_count = w->parked_count = 0;
  w->floor = head;
  needs n = look_at_needs(c, head);
  for (uint32_t k = 0; k < c->slots; k++) {
    uint64_t id = slots[k].sequence;
    w->state[slots[k].slot] = SLOT_USED;
    if (id == 0 || (id < head && id < n.soft && pools_hold(c, n.pools, id) == 0)) push_free(w, slots[k].slot);
    else if (id < w->floor) w->floor = id;
  }
  free(slots);
  return RING_OK;
}

// Mark the slot empty, then look for pins. The mark is put back when a reader is there: it may be in the middle of its check.
static int grab(ring_writer *w, uint32_t slot) {
  ring_control *c = w->control;
  ring_slot *s = slot_at(c, slot);
  uint64_t before = GET(s->sequence);
  PUT(c->claim_sequence, before);
  SHOW(c->claim_slot, slot + 1);
  SHOW(c->claim_stage, CLAIM_MARKING);
  KILL_POINT("ring.claim.recorded");
  SHOW(s->sequence, 0);
  KILL_POINT("ring.claim.marked");
  FULL_FENCE();
  int again = SEE(c->epoch) != w->epoch, held = pinned(c, slot);
  if (again || held) {
    SHOW(s->sequence, before);
    KILL_POINT("ring.claim.restored");
    SHOW(c->claim_stage, CLAIM_NONE);
    if (held) {
      w->state[slot] = SLOT_PARKED;
      w->parked[w->parked_count++] = slot;
    }
    return again ? RING_BUSY : RING_WAIT;
  }
  SHOW(c->claim_stage, CLAIM_GRANTED);
  KILL_POINT("ring.claim.granted");
  w->state[slot] = SLOT_CLAIMED;
  return RING_OK;
}

static int64_t claim(ring_writer *w) {
  ring_control *c = w->control;
restart:
  if (GET(c->closed)) return -RING_CLOSED;
  if (SEE(c->epoch) != w->epoch && rebuild(w) != RING_OK) return -RING_INVALID;
  uint64_t head = GET(c->head);
  needs n = look_at_needs(c, head);
  if (!pools_have_room(w, n.pools, head)) return -RING_WAIT;
  for (uint32_t k = 0; k < w->parked_count;) {
    uint32_t slot = w->parked[k];
    if (pinned(c, slot)) {
      k++;
      continue;
    }
    w->parked[k] = w->parked[--w->parked_count];
    push_free(w, slot);
  }
  int pass = 1; // while everything below is free, the floor moves along
  for (uint64_t id = w->floor; id < head && id < n.soft; id++) {
    int64_t slot = used_slot_of(w, id);
    if (slot >= 0 && pools_hold(c, n.pools, id) != 0) pass = 0;
    else if (slot >= 0) push_free(w, (uint32_t)slot);
    if (pass) w->floor = id + 1;
    else if (w->free_count) break;
  }
  while (w->free_count) {
    uint32_t slot = w->free_slots[--w->free_count];
    w->state[slot] = SLOT_USED;
    int code = grab(w, slot);
    if (code == RING_OK) return slot;
    if (code == RING_BUSY) goto restart;
  }
  // Nothing is free: the oldest frame that its readers may lose.
  uint64_t oldest = head > c->index_capacity ? head - c->index_capacity + 1 : 1;
  if (w->floor < oldest) w->floor = oldest;
  for (uint64_t id = w->floor; id < head && id < n.hard; id++) {
    int64_t slot = used_slot_of(w, id);
    if (slot < 0) {
      if (id == w->floor) w->floor++;
      continue;
    }
    int hold = pools_hold(c, n.pools, id);
    if (hold == 2 || (hold == 1 && !drop_for_pools(w, n.pools, id))) continue;
    int code = grab(w, (uint32_t)slot);
    if (code == RING_OK) return slot;
    if (code == RING_BUSY) goto restart;
  }
  return -RING_WAIT;
}

static int owner_gone(ring_writer *w) {
  int64_t now = monotonic_now();
  if (now - w->looked_ns < OWNER_LOOK_NS) return 0;
  w->looked_ns = now;
  return owner_is_dead(w->control, w->owner_pidfd);
}

// ---------------------------------------------------------------- calls from Python

MUTOSCOPE_API ring_writer *mutoscope_writer_open(void *control, uint32_t own_pid, const int *bells) {
  ring_control *c = control;
  ring_writer *w = calloc(1, sizeof *w);
  if (w == NULL) return NULL;
  w->free_slots = calloc(c->slots, sizeof *w->free_slots);
  w->parked = calloc(c->slots, sizeof *w->parked);
  w->state = calloc(c->slots, 1);
  w->control = c;
  w->owner_pidfd = bells[0], w->bell = bells[1], w->owner_bell = bells[2], w->interrupt = -1;
  for (uint32_t k = 0; k < c->row_count; k++) w->row_bells[k] = bells[3 + k];
  w->looked_ns = monotonic_now();
  ring_recover_producer(c);
  if (!w->free_slots || !w->parked || !w->state || rebuild(w) != RING_OK) {
    free(w->free_slots), free(w->parked), free(w->state), free(w);
    return NULL;
  }
  PUT(c->producer_sleeping, 0);
  PUT(c->incarnations, GET(c->incarnations) + 1);
  SHOW(c->writer_pid, own_pid);
  ring_one(w->owner_bell);
  return w;
}

MUTOSCOPE_API void mutoscope_writer_interrupt(ring_writer *w, int fd) { w->interrupt = fd; }

// The claimed slot, or the negative of a code. Never waits.
MUTOSCOPE_API int64_t mutoscope_writer_claim(ring_writer *w) {
  int64_t slot = claim(w);
  if (slot == -RING_WAIT) PUT(w->control->full_events, GET(w->control->full_events) + 1);
  if (slot >= 0 && owner_gone(w)) {
    ring_recover_producer(w->control);
    return -RING_CLOSED;
  }
  return slot;
}

// Waits at most timeout_ns for a slot. Sleeps on its own bell, which commits and releases ring.
MUTOSCOPE_API int64_t mutoscope_writer_wait(ring_writer *w, int64_t timeout_ns) {
  ring_control *c = w->control;
  int64_t began = monotonic_now(), deadline = began + timeout_ns, slot = -RING_WAIT;
  while (slot == -RING_WAIT) {
    PUT(c->producer_sleeping, 1);
    FULL_FENCE();
    slot = claim(w);
    if (slot != -RING_WAIT) break;
    int64_t now = monotonic_now(), left = deadline > now ? deadline - now : 0;
    struct timespec timeout = {left / 1000000000, left % 1000000000};
    struct pollfd watched[3] = {{.fd = w->bell, .events = POLLIN}, {.fd = w->owner_pidfd, .events = POLLIN},
                                {.fd = w->interrupt, .events = POLLIN}};
    int ready = ppoll(watched, 3, &timeout, NULL);
    int error = errno;
    PUT(c->producer_sleeping, 0);
    if (ready > 0 && watched[0].revents) quiet_bell(w->bell);
    if (ready > 0 && watched[1].revents) owner_is_dead(c, w->owner_pidfd);
    slot = claim(w);
    if (slot != -RING_WAIT) break;
    if (ready > 0 && watched[2].revents) slot = -RING_INTERRUPTED;
    else if (ready < 0 && error == EINTR) slot = -RING_SIGNAL;
    else if (monotonic_now() >= deadline) slot = -RING_TIMEOUT;
  }
  PUT(c->producer_sleeping, 0);
  PUT(c->blocked_ns, GET(c->blocked_ns) + (uint64_t)(monotonic_now() - began));
  return slot;
}

// Publish the claimed slot and wake who sleeps. Fills in the frame's id, and the times that are 0.
MUTOSCOPE_API uint64_t mutoscope_writer_publish(ring_writer *w, uint32_t slot, const frame_header *header) {
  ring_control *c = w->control;
  ring_slot *s = slot_at(c, slot);
  uint64_t id = GET(c->head) + 1;
  s->header = *header;
  s->header.frame_id = id;
  if (s->header.monotonic_ns == 0) s->header.monotonic_ns = monotonic_now();
  if (s->header.utc_ns == 0) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    s->header.utc_ns = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
  }
  KILL_POINT("ring.publish.header");
  SHOW(s->sequence, id);
  KILL_POINT("ring.publish.sequence");
  SHOW(*index_of(c, id), id << 16 | slot);
  KILL_POINT("ring.publish.index");
  PUT(c->producer_cpu, (uint32_t)sched_getcpu());
  SHOW(c->head, id);
  KILL_POINT("ring.publish.head");
  SHOW(c->claim_stage, CLAIM_NONE);
  w->state[slot] = SLOT_USED;
  FULL_FENCE();
  for (uint64_t active = SEE(c->active_rows); active; active &= active - 1) {
    uint32_t row = (uint32_t)__builtin_ctzll(active);
    if (GET(row_at(c, row)->sleeping)) ring_one(w->row_bells[row]);
  }
  KILL_POINT("ring.publish.rung");
  return id;
}

MUTOSCOPE_API void mutoscope_writer_discard(ring_writer *w, uint32_t slot) {
  SHOW(w->control->claim_stage, CLAIM_NONE);
  PUT(w->control->discarded, GET(w->control->discarded) + 1);
  push_free(w, slot);
}

MUTOSCOPE_API void mutoscope_writer_leave(ring_writer *w) {
  ring_recover_producer(w->control);
  SHOW(w->control->writer_pid, 0);
  SHOW(w->control->writer_assigned, 0);
  ring_one(w->owner_bell);
}

// The producer's place goes to another process, which has not opened it yet.
MUTOSCOPE_API void mutoscope_writer_hand_over(ring_writer *w) { SHOW(w->control->writer_pid, 0); }

MUTOSCOPE_API void mutoscope_writer_free(ring_writer *w) {
  free(w->free_slots);
  free(w->parked);
  free(w->state);
  free(w);
}
