/* Sends ticks through shared memory and prints a line for each prediction. See docs/shared-memory.md.
 *
 *     cc -std=gnu11 -O2 -I "$(python -c 'import penstock.v1; print(penstock.v1.C_INCLUDE)')" \
 *         docs/examples/penstock_ring_example.c -o ring_example
 *     python -m penstock_client.shared_memory.launch unix:/run/penstock.sock --instrument 1:BTCUSDT -- ./ring_example 10
 *
 * The launcher keeps the session over gRPC, and names the socket and the token in PENSTOCK_RING_ADDRESS and
 * PENSTOCK_RING_TOKEN.
 */
#include "penstock_ring.h"

#include <stdlib.h>

#define INSTRUMENT 1

static int token_of(const char *text, uint8_t *token) {
    for (int index = 0; index < PENSTOCK_TOKEN_BYTES; index++) {
        unsigned int byte;
        if (sscanf(text + 2 * index, "%2x", &byte) != 1) {
            return -1;
        }
        token[index] = (uint8_t)byte;
    }
    return 0;
}

static void fill(penstock_tick *tick, int64_t number) {
    int64_t mid = INT64_C(50000000000000) + (number % 7) * 10000000;
    memset(tick, 0, sizeof *tick);
    tick->length = PENSTOCK_TICK_LENGTH;
    tick->rtype = PENSTOCK_TICK_RTYPE;
    tick->instrument_id = INSTRUMENT;
    tick->ts_event = tick->ts_recv = UINT64_C(1700000000000000000) + (uint64_t)number * 1000000;
    tick->price = PENSTOCK_UNDEFINED_PRICE;
    tick->action = 'A';
    tick->side = 'N';
    tick->bid_px = mid - 5000000;
    tick->ask_px = mid + 5000000;
    tick->bid_sz = 1 + (uint32_t)(number % 3);
    tick->ask_sz = 2;
    tick->bid_ct = tick->ask_ct = 1;
}

static void print(const penstock_prediction *prediction) {
    if (prediction->flags & PENSTOCK_REFUSED_FLAG) {
        printf("%llu refused %u\n", (unsigned long long)prediction->sequence, (unsigned int)prediction->horizons);
        return;
    }
    printf("%llu", (unsigned long long)prediction->sequence);
    for (int index = 0; index < prediction->horizons && index < 4; index++) {
        const penstock_forecast *forecast = &prediction->forecasts[index];
        printf(" %.9g %u %u", (double)forecast->expected_return, (unsigned int)forecast->probability_up,
               (unsigned int)forecast->probability_down);
    }
    printf("\n");
}

int main(int count, char **arguments) {
    const char *path = getenv("PENSTOCK_RING_ADDRESS"), *text = getenv("PENSTOCK_RING_TOKEN");
    int64_t wanted = count > 1 ? atoll(arguments[1]) : 10, sent = 0, read = 0;
    uint8_t token[PENSTOCK_TOKEN_BYTES];
    char sentence[PENSTOCK_REPLY_BYTES_MAX];
    penstock_ring ring;

    if (path == NULL || text == NULL || token_of(text, token) != 0) {
        fprintf(stderr, "PENSTOCK_RING_ADDRESS and PENSTOCK_RING_TOKEN must name a segment: start me with the launcher\n");
        return 2;
    }
    if (penstock_attach(&ring, path, token, PENSTOCK_ATTACH_MS, sentence, sizeof sentence) != 0) {
        fprintf(stderr, "not attached: %s\n", sentence);
        return 1;
    }
    while (read < wanted) {
        penstock_tick_slot *slots;
        const penstock_prediction *predictions;
        int32_t ready, room = penstock_claim(&ring, (uint32_t)(wanted - sent < 16 ? wanted - sent : 16), &slots);
        if (room < 0) {
            break;
        }
        for (int32_t index = 0; index < room; index++) {
            fill(&slots[index].tick, sent + index);
        }
        if (room > 0) {
            penstock_publish(&ring, (uint32_t)room);
            sent += room;
        }
        ready = penstock_peek(&ring, &predictions);
        if (ready < 0) {
            break;
        }
        for (int32_t index = 0; index < ready; index++) {
            print(&predictions[index]);
        }
        penstock_release(&ring, (uint32_t)ready);
        read += ready;
        if (ready == 0 && room == 0) {
            int woken = penstock_ended(&ring) == PENSTOCK_SERVED ? penstock_wait(&ring, 1000) : -EPIPE;
            if (woken < 0 && woken != -EINTR) {
                break;
            }
        }
    }
    penstock_detach(&ring);
    if (read < wanted) {
        fprintf(stderr, "the daemon is gone: %lld of %lld ticks have a prediction\n", (long long)read, (long long)wanted);
    }
    return read == wanted ? 0 : 1;
}
