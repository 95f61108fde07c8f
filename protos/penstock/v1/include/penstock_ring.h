/* A strategy's end of a penstock segment: the layout of penstock/v1/shared_ring.py, and what is done with it.
 *
 *     penstock_attach     the handshake; checks all that the daemon says before anything is relied on
 *     penstock_claim      free tick slots, to be filled in place      penstock_publish    the daemon may read them
 *     penstock_peek       predictions, in place                       penstock_release    their slots are the daemon's again
 *     penstock_wait       sleeps until the daemon rings
 *     penstock_detach     leaves; the session itself is ended over gRPC
 *
 * One thread writes ticks and one reads predictions; they may be the same. Cursors only grow and have one writer each:
 * who writes a record stores the cursor behind it with release semantics, who reads it loads the cursor with acquire
 * semantics first. Between storing tick_published and loading engine_sleeping, and between storing client_waiting and
 * loading prediction_published, stands a full fence: without it both sides may fall asleep.
 *
 * C11 or C++11, little-endian Linux. Where strict ISO C is asked for, define _GNU_SOURCE first. See docs/shared-memory.md.
 */
#ifndef PENSTOCK_RING_H
#define PENSTOCK_RING_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
#define PENSTOCK_ASSERT(condition, sentence) static_assert(condition, sentence)
static inline int64_t penstock_load(const int64_t *word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
static inline void penstock_store(int64_t *word, int64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }
static inline void penstock_fence(void) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
extern "C" {
#else
#include <stdatomic.h>
#define PENSTOCK_ASSERT(condition, sentence) _Static_assert(condition, sentence)
static inline int64_t penstock_load(const int64_t *word) {
    return atomic_load_explicit((const _Atomic int64_t *)word, memory_order_acquire);
}
static inline void penstock_store(int64_t *word, int64_t value) {
    atomic_store_explicit((_Atomic int64_t *)word, value, memory_order_release);
}
static inline void penstock_fence(void) { atomic_thread_fence(memory_order_seq_cst); }
#endif

/* --- The layout --------------------------------------------------------------------------------------------------- */

#define PENSTOCK_LAYOUT_VERSION 1u
#define PENSTOCK_MAGIC UINT64_C(0x4b434f54534e4550) /* "PENSTOCK" */
#define PENSTOCK_HEADER_BYTES 4096
#define PENSTOCK_SLOTS_MIN 64u
#define PENSTOCK_SLOTS_MAX (1u << 20)
#define PENSTOCK_TOKEN_BYTES 16
#define PENSTOCK_REPLY_BYTES_MAX 1024
#ifndef PENSTOCK_ATTACH_MS
#define PENSTOCK_ATTACH_MS 5000 /* A timeout for penstock_attach that no daemon which lives needs. */
#endif
#define PENSTOCK_REFUSED_FLAG 0x80000000u /* The tick was refused: `horizons` holds the number of TickError.Reason. */

#define PENSTOCK_TICK_LENGTH 20 /* What every tick's length and rtype must say. */
#define PENSTOCK_TICK_RTYPE 1
#define PENSTOCK_UNDEFINED_PRICE INT64_MAX
#define PENSTOCK_UNDEFINED_TIME UINT64_MAX

enum penstock_segment_end {
    PENSTOCK_SERVED = 0,
    PENSTOCK_CLOSED = 1,
    PENSTOCK_DRAINING = 2,
    PENSTOCK_MALFORMED_TICK = 3,
    PENSTOCK_CURSOR = 4
};

/* A market tick: DBN's mbp-1. Prices in 1e-9 of the quote currency, times in Unix nanoseconds. */
typedef struct penstock_tick {
    uint8_t length; /* PENSTOCK_TICK_LENGTH */
    uint8_t rtype;  /* PENSTOCK_TICK_RTYPE */
    uint16_t publisher_id;
    uint32_t instrument_id;
    uint64_t ts_event;
    int64_t price;
    uint32_t size;
    uint8_t action;
    uint8_t side;
    uint8_t flags;
    uint8_t depth;
    uint64_t ts_recv;
    int32_t ts_in_delta;
    uint32_t sequence;
    int64_t bid_px;
    int64_t ask_px;
    uint32_t bid_sz;
    uint32_t ask_sz;
    uint32_t bid_ct;
    uint32_t ask_ct;
} penstock_tick;

typedef struct penstock_tick_slot {
    penstock_tick tick;
    int64_t written_ns; /* CLOCK_MONOTONIC when it was published; 0 for none. penstock_publish writes it. */
    uint8_t reserved[40];
} penstock_tick_slot;

typedef struct penstock_forecast {
    float expected_return; /* Of the mid, as a fraction. */
    float deviation;
    uint16_t probability_up; /* In 1/65535. */
    uint16_t probability_down;
} penstock_forecast;

typedef struct penstock_prediction {
    uint64_t sequence; /* Of the tick in its session. */
    uint64_t ts_event;
    uint64_t ts_recv;
    uint32_t instrument_id;
    uint32_t model_serial;
    uint32_t flags; /* PredictionFlag of records.py, and PENSTOCK_REFUSED_FLAG. */
    uint8_t clock;
    uint8_t horizons; /* How many forecasts are in use. */
    uint16_t batch;
    uint64_t received_ns;
    uint64_t wire_ns;
    uint32_t stage_ns[6];
    penstock_forecast forecasts[4];
} penstock_prediction;

typedef struct penstock_word {
    int64_t value;
    uint8_t cache_line[56];
} penstock_word;

typedef struct penstock_header {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t slots;
    uint64_t segment_bytes;
    uint64_t tick_ring;
    uint64_t prediction_ring;
    uint64_t session_id;
    uint64_t first_sequence;
    uint32_t tick_slot_bytes;
    uint32_t prediction_slot_bytes;
    uint8_t reserved[64];
    penstock_word tick_published;      /* Strategy. */
    penstock_word prediction_consumed; /* Strategy. */
    penstock_word client_waiting;      /* Strategy; the daemon takes it back to 0 and rings. */
    penstock_word tick_consumed;       /* Daemon, and so are the rest. */
    penstock_word prediction_published;
    penstock_word engine_sleeping;
    penstock_word daemon_beat_ns;
    penstock_word closed;
    uint8_t rest[PENSTOCK_HEADER_BYTES - 640];
} penstock_header;

PENSTOCK_ASSERT(sizeof(penstock_tick) == 80, "a tick is 80 bytes");
PENSTOCK_ASSERT(sizeof(penstock_tick_slot) == 128, "a tick slot is 128 bytes");
PENSTOCK_ASSERT(offsetof(penstock_tick_slot, written_ns) == 80, "written_ns follows the tick");
PENSTOCK_ASSERT(offsetof(penstock_tick, ts_recv) == 32, "a tick has no padding");
PENSTOCK_ASSERT(offsetof(penstock_tick, bid_px) == 48, "a tick has no padding");
PENSTOCK_ASSERT(sizeof(penstock_forecast) == 12, "a forecast is 12 bytes");
PENSTOCK_ASSERT(sizeof(penstock_prediction) == 128, "a prediction is 128 bytes");
PENSTOCK_ASSERT(offsetof(penstock_prediction, stage_ns) == 56, "a prediction has no padding");
PENSTOCK_ASSERT(offsetof(penstock_prediction, forecasts) == 80, "a prediction has no padding");
PENSTOCK_ASSERT(sizeof(penstock_header) == PENSTOCK_HEADER_BYTES, "the header is a page");
PENSTOCK_ASSERT(offsetof(penstock_header, tick_published) == 128, "words stand a cache line apart");
PENSTOCK_ASSERT(offsetof(penstock_header, closed) == 576, "words stand a cache line apart");

/* --- The attachment ----------------------------------------------------------------------------------------------- */

typedef struct penstock_request {
    char magic[8];
    uint32_t layout_version;
    uint32_t zero;
    uint8_t token[PENSTOCK_TOKEN_BYTES];
} penstock_request;

typedef struct penstock_reply {
    uint32_t status; /* 0 for attached; else a sentence in UTF-8 follows the reply. */
    uint32_t layout_version;
    uint64_t segment_bytes;
} penstock_reply;

PENSTOCK_ASSERT(sizeof(penstock_request) == 32, "a request is 32 bytes");
PENSTOCK_ASSERT(sizeof(penstock_reply) == 16, "a reply is 16 bytes");

/* What a strategy holds. Slots, ring and cursors are its own copies: no word of the segment selects an address. */
typedef struct penstock_ring {
    penstock_header *header;
    penstock_tick_slot *ticks;
    const penstock_prediction *predictions;
    uint32_t slots;
    uint64_t first_sequence; /* Of the first tick published here, in its session. */
    int64_t published;       /* Ticks. */
    int64_t consumed;        /* Predictions. */
    size_t bytes;
    int socket_fd;
    int event_fd;
} penstock_ring;

static inline int penstock_fail(char *sentence, size_t size, const char *said, int error) {
    if (sentence != NULL && size > 0) {
        snprintf(sentence, size, "%s%s%s", said, error ? ": " : "", error ? strerror(error) : "");
    }
    return error ? -error : -EPROTO;
}

/* Let no call on *connection* wait longer than *timeout_ms*; below 0 they wait for ever. Returns 0, or a negative errno. */
static inline int penstock_bound(int connection, int timeout_ms) {
    struct timeval bound; /* Zero would be for ever. */
    bound.tv_sec = timeout_ms / 1000;
    bound.tv_usec = timeout_ms == 0 ? 1 : timeout_ms % 1000 * 1000;
    if (timeout_ms >= 0 && (setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &bound, sizeof bound) != 0 ||
                            setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &bound, sizeof bound) != 0)) {
        return -errno;
    }
    return 0;
}

/* Return the negative errno of a call that failed: one that waited in vain says EAGAIN. */
static inline int penstock_waited(int error) { return error == EAGAIN || error == EWOULDBLOCK ? -ETIMEDOUT : -error; }

/* Connect to *path*, show the token, and take the reply into *bytes*. Returns its length, or a negative errno. */
static inline ssize_t penstock_handshake(int connection, const char *path, const uint8_t *token, void *bytes, int fds[2]) {
    struct sockaddr_un address;
    penstock_request request;
    struct iovec data;
    struct msghdr message;
    struct cmsghdr *control;
    ssize_t received;
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(2 * sizeof(int))];
    } space;

    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        return -ENAMETOOLONG;
    }
    strcpy(address.sun_path, path);
    if (connect(connection, (const struct sockaddr *)&address, sizeof address) != 0) {
        return penstock_waited(errno);
    }
    memcpy(request.magic, "PENSTOCK", sizeof request.magic);
    request.layout_version = PENSTOCK_LAYOUT_VERSION;
    request.zero = 0;
    memcpy(request.token, token, PENSTOCK_TOKEN_BYTES);
    if (send(connection, &request, sizeof request, MSG_NOSIGNAL) != (ssize_t)sizeof request) {
        return penstock_waited(errno);
    }
    data.iov_base = bytes;
    data.iov_len = PENSTOCK_REPLY_BYTES_MAX;
    memset(&message, 0, sizeof message);
    memset(&space, 0, sizeof space);
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = space.bytes;
    message.msg_controllen = sizeof space.bytes;
    received = recvmsg(connection, &message, MSG_CMSG_CLOEXEC);
    if (received < 0) {
        return penstock_waited(errno);
    }
    control = CMSG_FIRSTHDR(&message);
    if (control != NULL && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS) {
        size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(control), (count < 2 ? count : 2) * sizeof(int));
    }
    return received == 0 ? -ECONNRESET : received;
}

/* Check the header at *header* against what is fixed, and return what is wrong with it, or NULL. */
static inline const char *penstock_check(const penstock_header *header, size_t bytes) {
    uint64_t slots = header->slots;
    if (header->magic != PENSTOCK_MAGIC) return "the segment has another magic";
    if (header->layout_version != PENSTOCK_LAYOUT_VERSION) return "the segment has another layout version";
    if (slots < PENSTOCK_SLOTS_MIN || slots > PENSTOCK_SLOTS_MAX || (slots & (slots - 1)) != 0) {
        return "the segment's slots are no power of two in range";
    }
    if (header->tick_slot_bytes != sizeof(penstock_tick_slot)) return "the segment has tick slots of another size";
    if (header->prediction_slot_bytes != sizeof(penstock_prediction)) {
        return "the segment has prediction slots of another size";
    }
    if (header->tick_ring != PENSTOCK_HEADER_BYTES) return "the segment's tick ring is elsewhere";
    if (header->prediction_ring != PENSTOCK_HEADER_BYTES + slots * sizeof(penstock_tick_slot)) {
        return "the segment's prediction ring is elsewhere";
    }
    if (bytes != header->prediction_ring + slots * sizeof(penstock_prediction) || bytes != header->segment_bytes) {
        return "the segment has another size than its rings";
    }
    return NULL;
}

/* Map and check the segment behind fds[0]. Returns 0, or a negative errno with a sentence. */
static inline int penstock_map(penstock_ring *ring, const int fds[2], uint64_t told_bytes, char *sentence, size_t size) {
    enum { get_seals = 1034, shrink_grow_seal = 7 }; /* F_GET_SEALS, and the seals that keep the memory there. */
    struct stat status;
    const char *wrong;
    int seals = fcntl(fds[0], get_seals);
    void *mapped;

    if (seals < 0 || (seals & shrink_grow_seal) != shrink_grow_seal) {
        return penstock_fail(sentence, size, "the segment is not sealed against shrinking, growing and unsealing", 0);
    }
    if (fstat(fds[0], &status) != 0) {
        return penstock_fail(sentence, size, "the segment can't be looked at", errno);
    }
    if (status.st_size < PENSTOCK_HEADER_BYTES || (uint64_t)status.st_size != told_bytes) {
        return penstock_fail(sentence, size, "the segment has another size than the daemon said", 0);
    }
    mapped = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    if (mapped == MAP_FAILED) {
        return penstock_fail(sentence, size, "the segment can't be mapped", errno);
    }
    ring->header = (penstock_header *)mapped;
    ring->bytes = (size_t)status.st_size;
    wrong = penstock_check(ring->header, ring->bytes);
    if (wrong != NULL) {
        munmap(mapped, ring->bytes);
        return penstock_fail(sentence, size, wrong, 0);
    }
    ring->slots = ring->header->slots;
    ring->first_sequence = ring->header->first_sequence;
    ring->ticks = (penstock_tick_slot *)(void *)((char *)mapped + PENSTOCK_HEADER_BYTES);
    ring->predictions = (const penstock_prediction *)(void *)(ring->ticks + ring->slots);
    ring->published = ring->consumed = 0;
    return 0;
}

/* Attach to the segment of a session, as Welcome.shared_memory names it.
 *
 * ring        overwritten.
 * path        Welcome.shared_memory.address.
 * token       Welcome.shared_memory.token, 16 bytes; good for one attachment.
 * timeout_ms  how long the daemon may take to accept, and again to reply (-1 for ever); PENSTOCK_ATTACH_MS is generous.
 * sentence    what went wrong, of at most `size` bytes; may be NULL.
 *
 * Returns 0, or a negative errno: -EACCES where the daemon refused, -ETIMEDOUT where it stood still, -EPROTO where it
 * handed over nonsense.
 */
static inline int penstock_attach(penstock_ring *ring, const char *path, const uint8_t *token, int timeout_ms, char *sentence,
                                  size_t size) {
    union {
        penstock_reply reply;
        char bytes[PENSTOCK_REPLY_BYTES_MAX + 1];
    } answer;
    int fds[2] = {-1, -1};
    ssize_t received;
    int result;

    memset(ring, 0, sizeof *ring);
    ring->event_fd = -1;
    ring->socket_fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (ring->socket_fd < 0) {
        return penstock_fail(sentence, size, "no socket", errno);
    }
    received = penstock_bound(ring->socket_fd, timeout_ms);
    if (received == 0) {
        received = penstock_handshake(ring->socket_fd, path, token, answer.bytes, fds);
    }
    if (received < 0) {
        result = penstock_fail(sentence, size, "the daemon's socket for shared memory", (int)-received);
    } else if (received < (ssize_t)sizeof answer.reply) {
        result = penstock_fail(sentence, size, "the daemon's reply is too short", 0);
    } else if (answer.reply.status != 0) {
        answer.bytes[received] = '\0';
        penstock_fail(sentence, size, answer.bytes + sizeof answer.reply, 0);
        result = -EACCES;
    } else if (answer.reply.layout_version != PENSTOCK_LAYOUT_VERSION || fds[0] < 0 || fds[1] < 0) {
        result = penstock_fail(sentence, size, "the daemon's reply has another version, or lacks descriptors", 0);
    } else {
        result = penstock_map(ring, fds, answer.reply.segment_bytes, sentence, size);
    }
    if (fds[0] >= 0) {
        close(fds[0]); /* The mapping stays. */
    }
    if (result == 0) {
        ring->event_fd = fds[1];
        return 0;
    }
    if (fds[1] >= 0) {
        close(fds[1]);
    }
    close(ring->socket_fd);
    return result;
}

/* Leave the segment: the daemon sees the hang-up. */
static inline void penstock_detach(penstock_ring *ring) {
    munmap(ring->header, ring->bytes);
    close(ring->event_fd);
    close(ring->socket_fd);
}

/* --- Ticks ---------------------------------------------------------------------------------------------------------- */

/* Return how many free slots stand side by side at *slots, at most *count*: 0 where the ring is full, -EPROTO where the
 * daemon's cursor is none. Fill slots[i].tick, every field; nothing is taken before penstock_publish. */
static inline int32_t penstock_claim(penstock_ring *ring, uint32_t count, penstock_tick_slot **slots) {
    int64_t waiting = ring->published - penstock_load(&ring->header->tick_consumed.value);
    uint32_t at = (uint32_t)(ring->published & (ring->slots - 1));
    uint32_t room;
    if (waiting < 0 || waiting > (int64_t)ring->slots) {
        return -EPROTO;
    }
    room = ring->slots - (uint32_t)waiting;
    if (room > ring->slots - at) {
        room = ring->slots - at;
    }
    *slots = ring->ticks + at;
    return (int32_t)(count < room ? count : room);
}

/* Hand the first *count* claimed slots to the daemon, and wake it where it sleeps. */
static inline void penstock_publish(penstock_ring *ring, uint32_t count) {
    struct timespec now;
    uint32_t at = (uint32_t)(ring->published & (ring->slots - 1));
    uint32_t index;
    clock_gettime(CLOCK_MONOTONIC, &now);
    for (index = 0; index < count; index++) {
        ring->ticks[at + index].written_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
    }
    ring->published += count;
    penstock_store(&ring->header->tick_published.value, ring->published);
    penstock_fence();
    if (penstock_load(&ring->header->engine_sleeping.value) != 0) {
        uint64_t one = 1;
        ssize_t written = write(ring->event_fd, &one, sizeof one);
        (void)written; /* Full is as good as written. */
    }
}

/* --- Predictions ---------------------------------------------------------------------------------------------------- */

/* Return how many predictions stand side by side at *predictions: 0 for none yet, -EPROTO where the daemon's cursor is
 * none. They are to be read before penstock_release, and not after. */
static inline int32_t penstock_peek(const penstock_ring *ring, const penstock_prediction **predictions) {
    int64_t ready = penstock_load(&ring->header->prediction_published.value) - ring->consumed;
    uint32_t at = (uint32_t)(ring->consumed & (ring->slots - 1));
    if (ready < 0 || ready > (int64_t)ring->slots) {
        return -EPROTO;
    }
    *predictions = ring->predictions + at;
    return (int32_t)((uint64_t)ready < ring->slots - at ? (uint32_t)ready : ring->slots - at);
}

/* Give the slots of the first *count* predictions back. */
static inline void penstock_release(penstock_ring *ring, uint32_t count) {
    ring->consumed += count;
    penstock_store(&ring->header->prediction_consumed.value, ring->consumed);
}

/* Return why no prediction comes any more (enum penstock_segment_end), or PENSTOCK_SERVED. */
static inline int64_t penstock_ended(const penstock_ring *ring) { return penstock_load(&ring->header->closed.value); }

/* Sleep until there are predictions, at most *timeout_ms* (-1 for ever). Returns 1 where something may have come, 0 after
 * the timeout, -EPIPE where the daemon has hung up, or another negative errno. */
static inline int penstock_wait(penstock_ring *ring, int timeout_ms) {
    struct pollfd waited;
    char bell[16];
    int woken;
    penstock_store(&ring->header->client_waiting.value, 1);
    penstock_fence();
    if (penstock_load(&ring->header->prediction_published.value) != ring->consumed) {
        return 1;
    }
    waited.fd = ring->socket_fd;
    waited.events = POLLIN;
    waited.revents = 0;
    woken = poll(&waited, 1, timeout_ms);
    if (woken <= 0) {
        return woken == 0 ? 0 : -errno;
    }
    return recv(ring->socket_fd, bell, sizeof bell, MSG_DONTWAIT) == 0 ? -EPIPE : 1;
}

#ifdef __cplusplus
}
#endif

#endif
