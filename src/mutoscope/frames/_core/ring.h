// The frame ring: what its parts share. One control segment, mapped by everyone for reading and writing, holds all of this;
// the pixels are in a segment of their own. No locks: every word has one writer, or is changed by compare-and-swap (claim words).
#ifndef MUTOSCOPE_RING_H
#define MUTOSCOPE_RING_H
#include <poll.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guard.h"

#define RING_MAGIC 0x4d55544f52494e47ull
#define RING_VERSION 2
#define MAX_ROWS 64
#define MAX_PINS 256
#define MAX_GROUPS 8
#define LOG_RANGES 2048
#define POOL_LOG_IDS 4096
#define USER_BYTES 64
#define CACHE_LINE 64

typedef _Atomic uint64_t au64;
typedef _Atomic uint32_t au32;

#define GET(word) atomic_load_explicit(&(word), memory_order_relaxed)
#define SEE(word) atomic_load_explicit(&(word), memory_order_acquire)
#define PUT(word, value) atomic_store_explicit(&(word), (value), memory_order_relaxed)
#define SHOW(word, value) atomic_store_explicit(&(word), (value), memory_order_release)
#define FULL_FENCE() atomic_thread_fence(memory_order_seq_cst)

enum { POLICY_EVERY = 1, POLICY_LATEST = 2, POLICY_SHARE = 3 };
enum { ON_FULL_BLOCK = 1, ON_FULL_DROP = 2, ON_FULL_DETACH = 3 };
enum { ROW_FREE = 0, ROW_ACTIVE = 1, ROW_KEPT = 2 };
enum { OPEN = 0, CLOSED_BY_OWNER = 1, OWNER_DIED = 2 };
enum { CLAIM_NONE = 0, CLAIM_MARKING = 1, CLAIM_GRANTED = 2 };

// What a call answers. Python maps the numbers by name (_native.py).
enum {
  RING_OK = 0,
  RING_WAIT = 1,        // nothing yet
  RING_TIMEOUT = 2,
  RING_INTERRUPTED = 3, // the caller's own descriptor is readable
  RING_CLOSED = 4,
  RING_LIMIT = 5,       // the cap of leases is reached
  RING_LOST = 6,
  RING_SIGNAL = 7,      // a signal came: let Python run its handlers
  RING_INVALID = 8,
  RING_NO_ROW = 9,
  RING_NO_GROUP = 10,
  RING_BUSY = 11,
};

typedef struct { // of one published frame, written before its sequence number
  uint64_t frame_id, tick;
  int64_t monotonic_ns, utc_ns;
  double exposure_ms;
  uint32_t height, width;
  char dtype[8];
  int32_t t, c, z, position;
  uint32_t user_size, spare;
  uint8_t user[USER_BYTES];
} frame_header;

typedef struct {
  _Alignas(CACHE_LINE) au64 sequence; // the frame that this slot holds whole; 0: none
  frame_header header;
} ring_slot;

typedef struct {
  au64 cursor;  // the first id that is neither done nor dropped
  au64 done;    // ids below the cursor that were committed (share: those this member completed)
  au64 dropped; // ids below the cursor that were not
  au64 ranges;  // entries ever written to the log of dropped ranges
  au64 last_id; // share: the id that this account counts last
} ring_account;

typedef struct {
  au64 first, count;
} ring_range;

typedef struct {
  // written by the owner
  _Alignas(CACHE_LINE) au32 state;
  au32 policy, on_full, leases, group, pid;
  au64 start_id, lag_limit;
  char name[32];
  au64 log_read; // entries of the log that the owner has read
  au32 log_kept; // the owner reads them all: the consumer waits for it rather than write over one
  // written by the consumer (by the owner while there is none)
  _Alignas(CACHE_LINE) au64 selector; // its lowest bit says which account is valid
  ring_account accounts[2];
  _Alignas(CACHE_LINE) au32 sleeping;
  au32 leaving, attached_pid, detached;
  au64 progress, shown, last_shown;
  au64 end_id; // one more than the newest frame when it left; 0 while it is there
  _Alignas(CACHE_LINE) au32 pins[MAX_PINS]; // slot + 1
  ring_range log[LOG_RANGES];
} ring_row;

typedef struct {
  // written by the owner
  _Alignas(CACHE_LINE) au32 active, on_full;
  au64 start_id, retired_done;
  char name[32];
  _Alignas(CACHE_LINE) au64 cursor;     // by compare-and-swap: the first id that is neither done nor dropped
  au64 generation;                      // goes up when a taken frame becomes free again
  _Alignas(CACHE_LINE) au64 log_count;  // written by the producer: frames dropped for this group
  au64 log[POOL_LOG_IDS];
} ring_group;

typedef struct {
  uint64_t magic, version, slots, slot_bytes, row_count, index_capacity, group_words, control_bytes;
  uint64_t rows_at, groups_at, words_at, index_at, slots_at;
  _Alignas(CACHE_LINE) au32 closed; // by the owner; by anyone who sees that the owner is dead
  au32 writer_assigned;
  au64 active_rows;                 // bit r: the producer looks at row r
  au64 epoch;                       // goes up when a row begins at a frame that may be free already
  _Alignas(CACHE_LINE) au64 head;   // the newest published id, written by the producer
  au32 producer_cpu;                // where it ran then
  _Alignas(CACHE_LINE) au32 producer_sleeping;
  au32 writer_pid;
  _Alignas(CACHE_LINE) au32 claim_stage, claim_slot; // slot + 1
  au64 claim_sequence, full_events, blocked_ns, discarded, incarnations;
} ring_control;

// Claim words of a group: id << 16 | state << 14 | row
enum { WORD_FREE = 0, WORD_TAKEN = 1, WORD_DONE = 2, WORD_DROPPED = 3 };
#define WORD(id, state, row) (((uint64_t)(id) << 16) | ((uint64_t)(state) << 14) | (uint64_t)(row))
#define WORD_ID(word) ((word) >> 16)
#define WORD_STATE(word) (((word) >> 14) & 3)
#define WORD_ROW(word) ((word) & 0x3fff)

static inline ring_row *row_at(ring_control *c, uint32_t row) { return (ring_row *)((char *)c + c->rows_at) + row; }
static inline ring_group *group_at(ring_control *c, uint32_t group) {
  return (ring_group *)((char *)c + c->groups_at) + group;
}
static inline au64 *word_at(ring_control *c, uint32_t group, uint64_t id) {
  return (au64 *)((char *)c + c->words_at) + group * c->group_words + (id & (c->group_words - 1));
}
static inline au64 *index_of(ring_control *c, uint64_t id) {
  return (au64 *)((char *)c + c->index_at) + (id & (c->index_capacity - 1));
}
static inline ring_slot *slot_at(ring_control *c, uint32_t slot) { return (ring_slot *)((char *)c + c->slots_at) + slot; }

// The slot of frame `id` by the index, or -1. The slot's own sequence number still has the last word.
static inline int64_t slot_of(ring_control *c, uint64_t id) {
  uint64_t entry = SEE(*index_of(c, id));
  return entry >> 16 == id && (entry & 0xffff) < c->slots ? (int64_t)(entry & 0xffff) : -1;
}

static inline int64_t monotonic_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void ring_one(int bell) {
  uint64_t one = 1;
  ssize_t done = write(bell, &one, sizeof one); // a full counter is as good as rung
  (void)done;
}

static inline void quiet_bell(int bell) {
  uint64_t count;
  ssize_t done = read(bell, &count, sizeof count);
  (void)done;
}

// A copy of the valid account, never a mixture of two.
static inline void read_account(ring_row *row, uint64_t out[5]) {
  for (;;) {
    uint64_t selector = SEE(row->selector);
    ring_account *a = &row->accounts[selector & 1];
    out[0] = GET(a->cursor), out[1] = GET(a->done), out[2] = GET(a->dropped), out[3] = GET(a->ranges), out[4] = GET(a->last_id);
    atomic_thread_fence(memory_order_acquire);
    if (GET(row->selector) == selector) return;
  }
}

static inline uint64_t row_cursor(ring_row *row) {
  for (;;) {
    uint64_t selector = SEE(row->selector), cursor = GET(row->accounts[selector & 1].cursor);
    atomic_thread_fence(memory_order_acquire);
    if (GET(row->selector) == selector) return cursor;
  }
}

// Move a group's cursor over all that is done or dropped.
static inline void advance_group(ring_control *c, uint32_t group) {
  ring_group *g = group_at(c, group);
  uint64_t cursor = atomic_load(&g->cursor), head = SEE(c->head);
  while (cursor <= head) {
    uint64_t word = atomic_load(word_at(c, group, cursor));
    if (WORD_ID(word) == cursor && WORD_STATE(word) < WORD_DONE) return;
    if (WORD_ID(word) < cursor) return;
    // the word's id is larger only if the cursor has moved on meanwhile: the exchange then fails
    if (atomic_compare_exchange_strong(&g->cursor, &cursor, cursor + 1)) cursor++;
  }
}

// True when the owner's process is gone; says so to everyone in the control segment.
static inline int owner_is_dead(ring_control *c, int owner_pidfd) {
  struct pollfd watched = {.fd = owner_pidfd, .events = POLLIN};
  if (poll(&watched, 1, 0) <= 0) return 0;
  uint32_t open = OPEN;
  atomic_compare_exchange_strong(&c->closed, &open, OWNER_DIED);
  return 1;
}

// Between two looks at the owner's pidfd while there is always something to do.
#define OWNER_LOOK_NS 50000000

void ring_recover_producer(ring_control *c);
#endif
