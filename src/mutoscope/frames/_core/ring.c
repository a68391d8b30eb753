// The owner's side of the ring: it formats the control segment, assigns and clears rows, repairs what a dead process left
// half done, closes. A stand-alone ring has a thread here that watches the processes which hold rows.
#define _GNU_SOURCE
#include "ring.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>

typedef struct {
  ring_control *control;
  uint64_t control_bytes;
  uint32_t own_pid;
  int producer_bell, wake, row_bells[MAX_ROWS];
  pthread_mutex_t lock;
  pthread_t thread;
  int watching;
  _Atomic int stopping;
  uint64_t watched_rows; // bit r: row r is cleared here when its process dies
  int watched_writer;
  int watched_fd[MAX_ROWS + 1]; // the last one is the producer's
  uint32_t watched_pid[MAX_ROWS + 1];
} ring_owner;

typedef struct { // what a reader asks for
  int32_t row;   // -1: any free row; else the row of the predecessor
  uint32_t policy, on_full, leases, pid, oldest;
  uint64_t lag_limit, watched, keeps_log;
  char name[32], group[32];
} row_request;

static uint64_t power_of_two(uint64_t at_least) {
  uint64_t n = 256;
  while (n < at_least) n *= 2;
  return n;
}

static uint64_t lines(uint64_t bytes) { return (bytes + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE; }

static void lay_out(ring_control *c, uint64_t slots, uint64_t slot_bytes, uint64_t rows) {
  *c = (ring_control){.version = RING_VERSION, .slots = slots, .slot_bytes = slot_bytes, .row_count = rows};
  c->index_capacity = c->group_words = power_of_two(4 * slots);
  c->rows_at = lines(sizeof *c);
  c->groups_at = c->rows_at + rows * sizeof(ring_row);
  c->words_at = c->groups_at + MAX_GROUPS * sizeof(ring_group);
  c->index_at = lines(c->words_at + MAX_GROUPS * c->group_words * sizeof(au64));
  c->slots_at = lines(c->index_at + c->index_capacity * sizeof(au64));
  c->control_bytes = c->slots_at + slots * sizeof(ring_slot);
}

MUTOSCOPE_API uint64_t mutoscope_ring_control_bytes(uint64_t slots, uint64_t slot_bytes, uint64_t rows) {
  ring_control c;
  lay_out(&c, slots, slot_bytes, rows);
  return c.control_bytes;
}

// `control` is zeroed memory.
MUTOSCOPE_API void mutoscope_ring_format(void *control, uint64_t slots, uint64_t slot_bytes, uint64_t rows) {
  ring_control *c = control;
  lay_out(c, slots, slot_bytes, rows);
  atomic_thread_fence(memory_order_release);
  c->magic = RING_MAGIC;
}

// 0 when this is a ring of our kind and version.
MUTOSCOPE_API int mutoscope_ring_check(void *control, uint64_t bytes) {
  ring_control *c = control;
  return bytes >= sizeof *c && c->magic == RING_MAGIC && c->version == RING_VERSION && c->control_bytes <= bytes ? 0 : RING_INVALID;
}

// The first frame gets this id: a ring that goes on where an earlier run ended. Before anyone opens it.
MUTOSCOPE_API void mutoscope_ring_begin(void *control, uint64_t first_id) { SHOW(((ring_control *)control)->head, first_id - 1); }

MUTOSCOPE_API uint64_t mutoscope_ring_head(void *control) { return SEE(((ring_control *)control)->head); }

// ---------------------------------------------------------------- repair

// A producer that died: put back a slot that it only looked at, complete a frame whose sequence number stands.
void ring_recover_producer(ring_control *c) {
  uint32_t slot = GET(c->claim_slot);
  if (GET(c->claim_stage) == CLAIM_MARKING && slot && slot <= c->slots && GET(slot_at(c, slot - 1)->sequence) == 0)
    SHOW(slot_at(c, slot - 1)->sequence, GET(c->claim_sequence));
  uint64_t head = GET(c->head);
  for (uint32_t k = 0; k < c->slots; k++) {
    uint64_t id = SEE(slot_at(c, k)->sequence);
    if (id != head + 1) continue;
    SHOW(*index_of(c, id), id << 16 | k);
    SHOW(c->head, id);
    break;
  }
  SHOW(c->claim_stage, CLAIM_NONE);
  for (uint32_t k = 0; k < MAX_GROUPS; k++) {
    ring_group *g = group_at(c, k);
    if (!SEE(g->active)) continue;
    uint64_t count = GET(g->log_count), id = GET(g->log[count % POOL_LOG_IDS]);
    if (id >= GET(g->start_id) && atomic_load(word_at(c, k, id)) == WORD(id, WORD_DROPPED, 0) &&
        (count == 0 || id > GET(g->log[(count - 1) % POOL_LOG_IDS])))
      SHOW(g->log_count, count + 1);
  }
}

// A pool member that died while it committed: the frame's own word says whether the prepared account counts.
static void reconcile(ring_control *c, ring_row *row, uint32_t index) {
  if (GET(row->policy) != POLICY_SHARE) return;
  uint64_t selector = SEE(row->selector);
  ring_account *now = &row->accounts[selector & 1], *next = &row->accounts[(selector + 1) & 1];
  uint64_t id = GET(next->last_id);
  if (GET(next->done) != GET(now->done) + 1 || id == GET(now->last_id) || id == 0) return;
  uint64_t word = atomic_load(word_at(c, GET(row->group), id));
  if (word == WORD(id, WORD_DONE, index) || WORD_ID(word) > id) SHOW(row->selector, selector + 1);
}

// ---------------------------------------------------------------- owner

static void ring_every_bell(ring_owner *o) {
  for (uint32_t k = 0; k < o->control->row_count; k++) ring_one(o->row_bells[k]);
  ring_one(o->producer_bell);
}

static void set_active(ring_control *c, uint32_t index, int active) {
  uint64_t bit = 1ull << index;
  if (active) atomic_fetch_or(&c->active_rows, bit);
  else atomic_fetch_and(&c->active_rows, ~bit);
}

static uint32_t pins_held(ring_row *row) {
  uint32_t held = 0;
  for (uint32_t k = 0; k < MAX_PINS; k++) held += SEE(row->pins[k]) != 0;
  return held;
}

static int is_member(ring_row *row, uint32_t group) {
  return GET(row->state) != ROW_FREE && GET(row->policy) == POLICY_SHARE && GET(row->group) == group;
}

static void free_row(ring_owner *o, uint32_t index) {
  ring_control *c = o->control;
  ring_row *row = row_at(c, index);
  if (GET(row->policy) == POLICY_SHARE) {
    uint32_t group = GET(row->group);
    ring_group *g = group_at(c, group);
    uint64_t account[5];
    read_account(row, account);
    PUT(g->retired_done, GET(g->retired_done) + account[1]);
    for (uint64_t k = 0; k < c->group_words; k++) {
      uint64_t word = atomic_load(word_at(c, group, k));
      if (WORD_STATE(word) == WORD_TAKEN && WORD_ROW(word) == index)
        atomic_compare_exchange_strong(word_at(c, group, k), &word, WORD(WORD_ID(word), WORD_FREE, index));
    }
    atomic_fetch_add(&g->generation, 1);
    advance_group(c, group);
  }
  SHOW(row->state, ROW_FREE);
  set_active(c, index, 0);
}

// Called with the lock held. The process is gone, so its words are ours to write.
static void reader_died(ring_owner *o, uint32_t index, int keep) {
  ring_control *c = o->control;
  ring_row *row = row_at(c, index);
  if (GET(row->state) == ROW_FREE) return;
  reconcile(c, row, index);
  for (uint32_t k = 0; k < MAX_PINS; k++) SHOW(row->pins[k], 0);
  PUT(row->sleeping, 0);
  PUT(row->attached_pid, 0);
  if (keep) SHOW(row->state, ROW_KEPT);
  else if (!GET(row->leaving)) free_row(o, index);
  ring_every_bell(o);
}

static void writer_died(ring_owner *o) {
  ring_recover_producer(o->control);
  PUT(o->control->producer_sleeping, 0);
  PUT(o->control->writer_pid, 0);
  SHOW(o->control->writer_assigned, 0);
  ring_every_bell(o);
}

static uint32_t caps(ring_control *c, int32_t except) {
  uint32_t sum = 0;
  for (uint32_t k = 0; k < c->row_count; k++) {
    ring_row *row = row_at(c, k);
    if (GET(row->state) == ROW_FREE || (int32_t)k == except) continue;
    sum += GET(row->leaving) ? pins_held(row) : GET(row->leases);
  }
  return sum;
}

static int group_is_live(ring_control *c, uint32_t group, uint32_t except) {
  for (uint32_t k = 0; k < c->row_count; k++)
    if (k != except && is_member(row_at(c, k), group) && !SEE(row_at(c, k)->leaving)) return 1;
  return 0;
}

static int find_group(ring_owner *o, const row_request *q) {
  ring_control *c = o->control;
  int unused = -1;
  for (uint32_t k = 0; k < MAX_GROUPS; k++) {
    ring_group *g = group_at(c, k);
    int live = GET(g->active) && group_is_live(c, k, UINT32_MAX);
    if (GET(g->active) && strncmp(g->name, q->group, sizeof g->name) == 0) return GET(g->on_full) == q->on_full || !live ? (int)k : -2;
    if (!live && unused < 0) unused = (int)k;
  }
  return unused;
}

static void begin_group(ring_owner *o, uint32_t k, const row_request *q) {
  ring_control *c = o->control;
  ring_group *g = group_at(c, k);
  SHOW(g->active, 0);
  for (uint32_t row = 0; row < c->row_count; row++) // rows that left the earlier pool
    if (is_member(row_at(c, row), k) && GET(row_at(c, row)->leaving) && !pins_held(row_at(c, row))) free_row(o, row);
  for (uint64_t id = 0; id < c->group_words; id++) PUT(*word_at(c, k, id), 0);
  memcpy(g->name, q->group, sizeof g->name);
  PUT(g->on_full, q->on_full);
  PUT(g->retired_done, 0);
  PUT(g->log_count, 0);
  PUT(g->log[0], 0);
  PUT(g->cursor, SEE(c->head) + 1);
  PUT(g->start_id, GET(g->cursor));
  SHOW(g->active, 1);
}

// The oldest frame from which on all are there.
static uint64_t oldest_frame(ring_control *c) {
  uint64_t head = SEE(c->head), id = head;
  for (; id > 0; id--) {
    int64_t slot = slot_of(c, id);
    if (slot < 0 || SEE(slot_at(c, (uint32_t)slot)->sequence) != id) break;
  }
  return id + 1;
}

static void set_watched(ring_owner *o, uint32_t index, uint64_t watched) {
  o->watched_rows = (o->watched_rows & ~(1ull << index)) | (watched ? 1ull << index : 0);
}

static int64_t assign(ring_owner *o, const row_request *q) {
  ring_control *c = o->control;
  if (GET(c->closed)) return -RING_CLOSED;
  if (caps(c, q->row) + q->leases + 2 > c->slots) return -RING_LIMIT;
  if (q->row >= 0) { // the successor: account, cursor and taken frames go on
    ring_row *row = row_at(c, (uint32_t)q->row);
    if (GET(row->state) == ROW_FREE || GET(row->policy) != q->policy) return -RING_INVALID;
    reader_died(o, (uint32_t)q->row, 1);
    PUT(row->leases, q->leases);
    PUT(row->pid, q->pid);
    PUT(row->leaving, 0);
    PUT(row->end_id, 0);
    PUT(row->attached_pid, q->pid);
    set_watched(o, (uint32_t)q->row, q->watched);
    SHOW(row->state, ROW_ACTIVE);
    return q->row;
  }
  int64_t found = -1;
  for (uint32_t k = 0; k < c->row_count && found < 0; k++)
    if (GET(row_at(c, k)->state) == ROW_FREE) found = k;
  for (uint32_t k = 0; k < c->row_count && found < 0; k++)
    if (SEE(row_at(c, k)->leaving) && !pins_held(row_at(c, k))) free_row(o, k), found = k;
  if (found < 0) return -RING_NO_ROW;
  uint32_t index = (uint32_t)found;
  ring_row *row = row_at(c, index);
  int group = 0;
  if (q->policy == POLICY_SHARE) {
    group = find_group(o, q);
    if (group < 0) return group == -2 ? -RING_INVALID : -RING_NO_GROUP;
    if (!GET(group_at(c, (uint32_t)group)->active) || !group_is_live(c, (uint32_t)group, index)) begin_group(o, (uint32_t)group, q);
  }
  uint64_t head = SEE(c->head), begin = q->oldest ? 1 : head + 1;
  PUT(row->policy, q->policy), PUT(row->on_full, q->on_full), PUT(row->leases, q->leases), PUT(row->pid, q->pid);
  PUT(row->group, (uint32_t)group), PUT(row->lag_limit, q->lag_limit), PUT(row->start_id, begin);
  memcpy(row->name, q->name, sizeof row->name);
  PUT(row->selector, 0);
  memset(row->accounts, 0, sizeof row->accounts);
  PUT(row->log_read, 0), PUT(row->log_kept, q->keeps_log && q->policy == POLICY_EVERY && q->on_full == ON_FULL_DROP);
  PUT(row->accounts[0].cursor, begin);
  PUT(row->sleeping, 0), PUT(row->leaving, 0), PUT(row->attached_pid, q->pid), PUT(row->detached, 0);
  PUT(row->progress, 0), PUT(row->shown, 0), PUT(row->last_shown, 0), PUT(row->end_id, 0);
  for (uint32_t k = 0; k < MAX_PINS; k++) PUT(row->pins[k], 0);
  set_watched(o, index, q->watched);
  if (q->oldest) atomic_fetch_add(&c->epoch, 1);
  SHOW(row->state, ROW_ACTIVE);
  set_active(c, index, 1);
  FULL_FENCE();
  // From here on the producer keeps what this row needs, so what is published from now on is held.
  begin = q->oldest ? oldest_frame(c) : SEE(c->head) + 1;
  PUT(row->start_id, begin);
  PUT(row->accounts[0].cursor, begin);
  SHOW(row->selector, 2);
  if (q->policy == POLICY_SHARE) {
    ring_group *g = group_at(c, (uint32_t)group);
    if (!group_is_live(c, (uint32_t)group, index)) {
      PUT(g->start_id, begin);
      atomic_store(&g->cursor, begin);
    }
  }
  if (GET(c->producer_sleeping)) ring_one(o->producer_bell);
  return index;
}

// ---------------------------------------------------------------- watching processes

static void watch(ring_owner *o, uint32_t k, uint32_t pid) {
  if (o->watched_pid[k] == pid) return;
  if (o->watched_fd[k] >= 0) close(o->watched_fd[k]);
  o->watched_fd[k] = -1;
  o->watched_pid[k] = pid;
  if (pid == 0 || pid == o->own_pid) return;
  o->watched_fd[k] = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
}

static uint32_t holder(ring_owner *o, uint32_t k) {
  ring_control *c = o->control;
  if (k == MAX_ROWS) return o->watched_writer ? SEE(c->writer_pid) : 0;
  return k < c->row_count && o->watched_rows >> k & 1 && GET(row_at(c, k)->state) == ROW_ACTIVE ? SEE(row_at(c, k)->attached_pid) : 0;
}

static void *watch_run(void *argument) {
  ring_owner *o = argument;
  while (!o->stopping) {
    struct pollfd polled[MAX_ROWS + 2] = {{.fd = o->wake, .events = POLLIN}};
    pthread_mutex_lock(&o->lock);
    for (uint32_t k = 0; k <= MAX_ROWS; k++) {
      uint32_t pid = holder(o, k);
      watch(o, k, pid);
      if (pid && pid != o->own_pid && o->watched_fd[k] < 0) { // it died before we could look
        if (k == MAX_ROWS) writer_died(o);
        else reader_died(o, k, 0);
        o->watched_pid[k] = 0;
      }
      polled[k + 1] = (struct pollfd){.fd = o->watched_fd[k], .events = POLLIN};
    }
    pthread_mutex_unlock(&o->lock);
    if (poll(polled, MAX_ROWS + 2, -1) < 0 && errno != EINTR) break;
    if (polled[0].revents) quiet_bell(o->wake);
    pthread_mutex_lock(&o->lock);
    for (uint32_t k = 0; k <= MAX_ROWS; k++) {
      if (polled[k + 1].fd < 0 || !polled[k + 1].revents || holder(o, k) != o->watched_pid[k]) continue;
      if (k == MAX_ROWS) writer_died(o);
      else reader_died(o, k, 0);
    }
    pthread_mutex_unlock(&o->lock);
  }
  return NULL;
}

// ---------------------------------------------------------------- calls from Python

// Maps the control segment once more, so that the watching thread never looks at memory that Python has let go.
MUTOSCOPE_API ring_owner *mutoscope_ring_own(int control_fd, uint64_t bytes, uint32_t own_pid, const int *bells) {
  ring_owner *o = calloc(1, sizeof *o);
  if (o == NULL) return NULL;
  o->control = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, control_fd, 0);
  if (o->control == MAP_FAILED) {
    free(o);
    return NULL;
  }
  o->control_bytes = bytes;
  o->own_pid = own_pid;
  o->producer_bell = bells[0], o->wake = bells[1];
  for (uint32_t k = 0; k < o->control->row_count; k++) o->row_bells[k] = bells[2 + k];
  for (uint32_t k = 0; k <= MAX_ROWS; k++) o->watched_fd[k] = -1;
  pthread_mutex_init(&o->lock, NULL);
  return o;
}

// Start the thread that watches who holds rows. It takes no signals. Returns 0, or an errno.
MUTOSCOPE_API int mutoscope_ring_watch(ring_owner *o) {
  if (o->watching) return 0;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int failed = pthread_create(&o->thread, NULL, watch_run, o);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  o->watching = !failed;
  return failed;
}

MUTOSCOPE_API int64_t mutoscope_ring_assign(ring_owner *o, const row_request *request) {
  pthread_mutex_lock(&o->lock);
  int64_t row = assign(o, request);
  ring_one(o->wake);
  pthread_mutex_unlock(&o->lock);
  return row;
}

// Sum of the caps of leases that readers hold now, without those of row `except`.
MUTOSCOPE_API uint32_t mutoscope_ring_caps(ring_owner *o, int32_t except) { return caps(o->control, except); }

MUTOSCOPE_API int mutoscope_ring_assign_writer(ring_owner *o, uint32_t pid, int watched) {
  pthread_mutex_lock(&o->lock);
  ring_control *c = o->control;
  int code = GET(c->closed) ? RING_CLOSED : GET(c->writer_assigned) ? RING_BUSY : RING_OK;
  if (code == RING_OK) {
    ring_recover_producer(c);
    o->watched_writer = watched;
    PUT(c->writer_pid, pid);
    SHOW(c->writer_assigned, 1);
    ring_one(o->wake);
  }
  pthread_mutex_unlock(&o->lock);
  return code;
}

MUTOSCOPE_API void mutoscope_ring_writer_died(ring_owner *o) {
  pthread_mutex_lock(&o->lock);
  writer_died(o);
  pthread_mutex_unlock(&o->lock);
}

MUTOSCOPE_API void mutoscope_ring_reader_died(ring_owner *o, uint32_t row, int keep) {
  pthread_mutex_lock(&o->lock);
  reader_died(o, row, keep);
  pthread_mutex_unlock(&o->lock);
}

// Say that the ring is closed, wake everyone, end the watching thread.
MUTOSCOPE_API void mutoscope_ring_close(ring_owner *o) {
  uint32_t open = OPEN;
  atomic_compare_exchange_strong(&o->control->closed, &open, CLOSED_BY_OWNER);
  ring_every_bell(o);
  if (o->watching) {
    o->stopping = 1;
    ring_one(o->wake);
    pthread_join(o->thread, NULL);
  }
  for (uint32_t k = 0; k <= MAX_ROWS; k++)
    if (o->watched_fd[k] >= 0) close(o->watched_fd[k]);
  pthread_mutex_destroy(&o->lock);
  munmap(o->control, o->control_bytes);
  free(o);
}

// out: state, policy, on_full, leases, pid, leaving, detached, start, cursor, done, dropped, ranges, shown, last_shown, progress,
// pins, newest frame (when it left, if it did), group start, group done, group dropped, attached process
MUTOSCOPE_API void mutoscope_ring_row(void *control, uint32_t index, uint64_t out[21], char names[64]) {
  ring_control *c = control;
  ring_row *row = row_at(c, index);
  uint64_t account[5];
  read_account(row, account);
  out[0] = GET(row->state), out[1] = GET(row->policy), out[2] = GET(row->on_full), out[3] = GET(row->leases);
  uint32_t attached = SEE(row->attached_pid);
  out[4] = attached ? attached : GET(row->pid);
  out[5] = GET(row->leaving), out[6] = GET(row->detached), out[7] = GET(row->start_id);
  memcpy(out + 8, account, 4 * sizeof account[0]);
  out[12] = GET(row->shown), out[13] = GET(row->last_shown), out[14] = GET(row->progress), out[15] = pins_held(row);
  out[17] = out[18] = out[19] = 0;
  memcpy(names, row->name, 32);
  memset(names + 32, 0, 32);
  if (out[0] != ROW_FREE && out[1] == POLICY_SHARE) {
    uint32_t group = GET(row->group);
    ring_group *g = group_at(c, group);
    out[8] = atomic_load(&g->cursor);
    out[17] = GET(g->start_id), out[18] = GET(g->retired_done), out[19] = SEE(g->log_count);
    for (uint32_t k = 0; k < c->row_count; k++) {
      if (!is_member(row_at(c, k), group)) continue;
      read_account(row_at(c, k), account);
      out[18] += account[1];
    }
    memcpy(names + 32, g->name, 32);
  }
  uint64_t end = SEE(row->end_id);
  out[16] = end ? end - 1 : SEE(c->head);
  out[20] = attached;
}

// Copies up to `most` entries from `number` (from 0) on of a row's log of dropped ranges, or of its pool's: first id and count each.
// Those that are overwritten already are left out. Returns how many; *next is the number behind the last one.
MUTOSCOPE_API uint64_t mutoscope_ring_dropped(void *control, uint32_t index, uint64_t number, uint64_t most, uint64_t *out,
                                              uint64_t *next) {
  ring_control *c = control;
  ring_row *row = row_at(c, index);
  ring_group *pool = GET(row->policy) == POLICY_SHARE ? group_at(c, GET(row->group)) : NULL;
  uint64_t account[5] = {0}, kept = pool ? POOL_LOG_IDS - 1 : LOG_RANGES - 1, count = 0;
  if (pool == NULL) read_account(row, account);
  uint64_t length = pool ? SEE(pool->log_count) : account[3];
  if (length > kept && number < length - kept) number = length - kept;
  if (number > length) number = length;
  uint64_t first = number, end = length - number > most ? number + most : length;
  for (; number < end; number++, count++) {
    out[2 * count] = pool ? SEE(pool->log[number % POOL_LOG_IDS]) : SEE(row->log[number % LOG_RANGES].first);
    out[2 * count + 1] = pool ? 1 : SEE(row->log[number % LOG_RANGES].count);
  }
  *next = end;
  if (pool == NULL) read_account(row, account);
  length = pool ? SEE(pool->log_count) : account[3];
  uint64_t gone = length > kept && first < length - kept ? length - kept - first : 0;
  if (gone > count) gone = count;
  memmove(out, out + 2 * gone, 2 * (count - gone) * sizeof out[0]);
  return count - gone;
}

// The owner has read the log of a row up to entry `number`.
MUTOSCOPE_API void mutoscope_ring_log_read(ring_owner *o, uint32_t index, uint64_t number) {
  ring_row *row = row_at(o->control, index);
  if (number <= GET(row->log_read)) return;
  SHOW(row->log_read, number);
  FULL_FENCE();
  if (GET(row->sleeping)) ring_one(o->row_bells[index]);
}

// 1 when frame `id`, at or above the pool's cursor, is neither done nor dropped by the pool that row `index` belongs to.
MUTOSCOPE_API int mutoscope_ring_unfinished(void *control, uint32_t index, uint64_t id) {
  ring_control *c = control;
  uint64_t word = atomic_load(word_at(c, GET(row_at(c, index)->group), id));
  return WORD_ID(word) < id || (WORD_ID(word) == id && WORD_STATE(word) < WORD_DONE);
}

// out: head, closed, writer pid, full events, blocked ns, discarded, incarnations of the producer, slots that hold a frame
MUTOSCOPE_API void mutoscope_ring_look(void *control, uint64_t out[8]) {
  ring_control *c = control;
  out[0] = SEE(c->head), out[1] = GET(c->closed), out[2] = SEE(c->writer_pid), out[3] = GET(c->full_events);
  out[4] = GET(c->blocked_ns), out[5] = GET(c->discarded), out[6] = GET(c->incarnations), out[7] = 0;
  for (uint32_t k = 0; k < c->slots; k++) out[7] += SEE(slot_at(c, k)->sequence) != 0;
}
