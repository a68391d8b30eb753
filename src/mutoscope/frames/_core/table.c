// Typed rows in a ring with one writer that never waits: a sequence in front of every row tells which row its place holds, so
// a reader can tell a whole row from one that was overwritten or never finished. The rows lie in one segment, which readers map
// read-only; a second small one holds a place for each reader: a flag to be woken by, and its account.
#define _GNU_SOURCE
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "guard.h"

#define TABLE_MAGIC 0x31424154454f5455ull
#define READERS 16
#define LINE 128 // two cache lines: processors fetch them in pairs

typedef _Atomic uint64_t word;

typedef struct {
  uint64_t magic, capacity, row_bytes, stride; // written once by the owner
  word writer;                                 // the number of the writer that may append; older ones are refused
  word closed;
  char pad[LINE - 48];
  word head; // id of the newest row that can be read; 0: none. Written by the writer only
  char pad2[LINE - 8];
} header;

typedef struct {
  word sleeping; // 1 while the reader waits for its bell
  word selector; // account[selector & 1] holds; a flip replaces cursor and lost together
  struct {
    word cursor, lost;
  } account[2];
  word pid;
  char pad[LINE - 56];
} reader_row;

_Static_assert(sizeof(header) == 2 * LINE, "header");
_Static_assert(sizeof(reader_row) == LINE, "reader row");

static uint64_t stride_of(uint64_t row_bytes) { return 8 + ((row_bytes + 7) & ~7ull); }

// The place of a row: its sequence, then its payload.
static word *place(const void *data, uint64_t id) {
  const header *h = data;
  return (word *)((uintptr_t)data + sizeof(header) + (id - 1) % h->capacity * h->stride);
}

MUTOSCOPE_API uint64_t mutoscope_table_bytes(uint64_t capacity, uint64_t row_bytes) {
  return sizeof(header) + capacity * stride_of(row_bytes);
}

MUTOSCOPE_API uint64_t mutoscope_table_control_bytes(void) { return READERS * sizeof(reader_row); }

// Owner: prepare a fresh (zeroed) segment.
MUTOSCOPE_API void mutoscope_table_init(void *data, uint64_t capacity, uint64_t row_bytes) {
  header *h = data;
  h->capacity = capacity;
  h->row_bytes = row_bytes;
  h->stride = stride_of(row_bytes);
  h->magic = TABLE_MAGIC;
}

// 1 if the segment is a table of this form.
MUTOSCOPE_API int mutoscope_table_fits(const void *data, uint64_t capacity, uint64_t row_bytes) {
  const header *h = data;
  return h->magic == TABLE_MAGIC && h->capacity == capacity && h->row_bytes == row_bytes;
}

// Owner: from now on only the writer of this number may append.
MUTOSCOPE_API void mutoscope_table_set_writer(void *data, uint64_t writer) { atomic_store(&((header *)data)->writer, writer); }

MUTOSCOPE_API void mutoscope_table_close(void *data) { atomic_store(&((header *)data)->closed, 1); }

MUTOSCOPE_API int mutoscope_table_closed(const void *data) {
  return atomic_load_explicit(&((header *)data)->closed, memory_order_acquire) != 0;
}

MUTOSCOPE_API uint64_t mutoscope_table_head(const void *data) {
  return atomic_load_explicit(&((header *)data)->head, memory_order_acquire);
}

static void fill(word *to, const unsigned char *from, uint64_t bytes) {
  uint64_t value;
  for (; bytes >= 8; bytes -= 8, from += 8, to++) {
    memcpy(&value, from, 8);
    atomic_store_explicit(to, value, memory_order_relaxed);
    KILL_POINT("table.filling");
  }
  if (bytes) {
    value = 0;
    memcpy(&value, from, bytes);
    atomic_store_explicit(to, value, memory_order_relaxed);
  }
}

static void take(unsigned char *to, const word *from, uint64_t bytes) {
  uint64_t value;
  for (; bytes >= 8; bytes -= 8, from++, to += 8) {
    value = atomic_load_explicit((word *)from, memory_order_relaxed);
    memcpy(to, &value, 8);
  }
  if (bytes) {
    value = atomic_load_explicit((word *)from, memory_order_relaxed);
    memcpy(to, &value, bytes);
  }
}

static void ring_sleepers(const reader_row *rows, const int *bells) {
  atomic_thread_fence(memory_order_seq_cst); // a reader either sees the new head, or its flag is seen here
  for (int i = 0; i < READERS; i++) {
    if (!atomic_load_explicit(&((reader_row *)rows)[i].sleeping, memory_order_relaxed)) continue;
    uint64_t one = 1;
    // An eventfd that is already at its maximum is readable anyway; a closed one has no sleeper.
    if (write(bells[i], &one, sizeof one) < 0) continue;
    KILL_POINT("table.rung");
  }
}

// Writer: append `count` packed rows. Returns the id of the last one, -1 when the table is closed, -2 when another writer took over.
// A writer that dies on the way leaves `head` where it was: what it had begun is not there, and its successor writes those ids.
MUTOSCOPE_API int64_t mutoscope_table_append(void *data, const void *control, uint64_t writer, const int *bells, const void *rows,
                                             uint64_t count) {
  header *h = data;
  const unsigned char *from = rows;
  uint64_t id = atomic_load_explicit(&h->head, memory_order_relaxed), most = h->capacity / 4 ? h->capacity / 4 : 1;
  while (count) {
    if (atomic_load_explicit(&h->closed, memory_order_relaxed)) return -1;
    if (atomic_load_explicit(&h->writer, memory_order_relaxed) != writer) return -2;
    uint64_t now = count < most ? count : most; // a long batch becomes readable in pieces
    for (uint64_t k = 0; k < now; k++, from += h->row_bytes) {
      word *p = place(data, ++id);
      atomic_store_explicit(p, 0, memory_order_relaxed);
      atomic_thread_fence(memory_order_release); // whoever meets a word of the new row also meets the 0
      KILL_POINT("table.claimed");
      fill(p + 1, from, h->row_bytes);
      KILL_POINT("table.filled");
      atomic_store_explicit(p, id, memory_order_release);
      KILL_POINT("table.sequenced");
    }
    atomic_store_explicit(&h->head, id, memory_order_release);
    KILL_POINT("table.published");
    ring_sleepers(control, bells);
    count -= now;
  }
  return (int64_t)id;
}

// Reader: copy the rows first…last that are still whole to `out`, their ids to `ids`. Returns how many.
MUTOSCOPE_API uint64_t mutoscope_table_copy(const void *data, uint64_t first, uint64_t last, void *out, uint64_t *ids) {
  const header *h = data;
  unsigned char *to = out;
  uint64_t found = 0;
  for (uint64_t id = first; id <= last; id++) {
    word *p = place(data, id);
    if (atomic_load_explicit(p, memory_order_acquire) != id) continue;
    take(to, p + 1, h->row_bytes);
    atomic_thread_fence(memory_order_acquire);
    if (atomic_load_explicit(p, memory_order_relaxed) != id) continue; // overwritten under the copy
    to += h->row_bytes;
    ids[found++] = id;
  }
  return found;
}

static reader_row *row_of(void *control, int row) { return (reader_row *)control + row; }

// Owner: give a row to a reader that starts after `cursor`.
MUTOSCOPE_API void mutoscope_table_row_reset(void *control, int row, uint64_t pid, uint64_t cursor) {
  reader_row *r = row_of(control, row);
  atomic_store(&r->sleeping, 0);
  atomic_store(&r->account[0].cursor, cursor);
  atomic_store(&r->account[0].lost, 0);
  atomic_store(&r->selector, 0);
  atomic_store(&r->pid, pid);
}

// Hand a row with its account on: to the successor of a reader that died, or to the process that now uses it.
MUTOSCOPE_API void mutoscope_table_row_inherit(void *control, int row, uint64_t pid) {
  reader_row *r = row_of(control, row);
  atomic_store(&r->sleeping, 0);
  atomic_store(&r->pid, pid);
}

// Reader: the row may be given to another, if it is still this process's.
MUTOSCOPE_API void mutoscope_table_row_leave(void *control, int row, uint64_t pid) {
  reader_row *r = row_of(control, row);
  atomic_store(&r->sleeping, 0);
  atomic_compare_exchange_strong(&r->pid, &pid, 0);
}

// Anyone: cursor, lost and pid of a row, taken together.
MUTOSCOPE_API void mutoscope_table_row_account(void *control, int row, uint64_t *cursor, uint64_t *lost, uint64_t *pid) {
  reader_row *r = row_of(control, row);
  uint64_t selector;
  do {
    selector = atomic_load_explicit(&r->selector, memory_order_acquire);
    *cursor = atomic_load_explicit(&r->account[selector & 1].cursor, memory_order_relaxed);
    *lost = atomic_load_explicit(&r->account[selector & 1].lost, memory_order_relaxed);
    atomic_thread_fence(memory_order_acquire);
  } while (atomic_load_explicit(&r->selector, memory_order_relaxed) != selector);
  *pid = atomic_load(&r->pid);
}

// Reader: the new account. A reader that dies on the way leaves the old one, whole.
MUTOSCOPE_API void mutoscope_table_row_commit(void *control, int row, uint64_t cursor, uint64_t lost) {
  reader_row *r = row_of(control, row);
  uint64_t next = atomic_load_explicit(&r->selector, memory_order_relaxed) + 1;
  atomic_thread_fence(memory_order_release);
  atomic_store_explicit(&r->account[next & 1].cursor, cursor, memory_order_relaxed);
  KILL_POINT("table.account_half");
  atomic_store_explicit(&r->account[next & 1].lost, lost, memory_order_relaxed);
  KILL_POINT("table.account_written");
  atomic_store_explicit(&r->selector, next, memory_order_release);
  KILL_POINT("table.account_flipped");
}

// Reader: announce sleep. Returns 0 if it may sleep on its bell, 1 if there is something to look at first.
MUTOSCOPE_API int mutoscope_table_row_sleep(const void *data, void *control, int row, uint64_t cursor) {
  reader_row *r = row_of(control, row);
  atomic_store_explicit(&r->sleeping, 1, memory_order_relaxed);
  atomic_thread_fence(memory_order_seq_cst); // pairs with the one in ring_sleepers
  if (mutoscope_table_head(data) <= cursor && !mutoscope_table_closed(data)) return 0;
  atomic_store_explicit(&r->sleeping, 0, memory_order_relaxed);
  return 1;
}

MUTOSCOPE_API void mutoscope_table_row_awake(void *control, int row) {
  atomic_store_explicit(&row_of(control, row)->sleeping, 0, memory_order_relaxed);
}
