/*
 * A worker in C: it finds the smallest divisor of each number that it is sent.
 *
 * It speaks the worker protocol (docs/protocol.md) on file descriptor 3, one job at a time. What such a worker has to do is all
 * here: say READY, take JOB frames with their parts, answer each with one OUTCOME, and leave at BYE or when the node is gone.
 * It may ignore CANCEL, RECALL and CREDIT, since it never holds more than the job at hand.
 *
 *     cc -O2 -Wall -Wextra -o worker worker.c
 */

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { NODE = 3, HEADER = 40, LARGEST = 262144 };
enum kind { READY = 1, JOB = 2, PART = 4, OUTCOME = 7, BYE = 9 };
enum { MORE = 1 };
enum content { NOTHING = 0, JSON = 1 };
enum verb { NEXT = 1, FAIL = 4 };
enum reason { ABORT = 2, DECODE = 3 };

/* A header, without the fields that this worker has no use for. */
struct frame {
    uint32_t length;
    uint8_t kind, flags, content, verb;
    uint64_t job;
    uint32_t attempt, extension, number;
    uint64_t nanoseconds;
};

/* Numbers travel with their lowest byte first, whatever machine this is. */
static void put(uint8_t *place, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++)
        place[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get(const uint8_t *place, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)place[i] << (8 * i);
    return value;
}

/* Reads all of it, or leaves: without its node a worker has nothing to do. */
static void receive(uint8_t *bytes, size_t count)
{
    while (count > 0) {
        ssize_t got = read(NODE, bytes, count);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            exit(0);
        bytes += got;
        count -= (size_t)got;
    }
}

static void transmit(const uint8_t *bytes, size_t count)
{
    while (count > 0) {
        ssize_t put = write(NODE, bytes, count);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            exit(0);
        bytes += put;
        count -= (size_t)put;
    }
}

/* Sends a frame: its header, then the extension and the payload, of which one may be empty. */
static void say(struct frame frame, const char *extension, const char *payload)
{
    uint8_t bytes[1024] = {0};
    size_t cold = strlen(extension), warm = strlen(payload);
    put(bytes, cold + warm, 4);
    bytes[4] = frame.kind;
    bytes[6] = frame.content;
    bytes[7] = frame.verb;
    put(bytes + 8, frame.job, 8);
    put(bytes + 16, frame.attempt, 4);
    put(bytes + 20, cold, 4);
    put(bytes + 24, frame.number, 4);
    put(bytes + 32, frame.nanoseconds, 8);
    memcpy(bytes + HEADER, extension, cold);
    memcpy(bytes + HEADER + cold, payload, warm);
    transmit(bytes, HEADER + cold + warm);
}

static struct frame hear(uint8_t *rest)
{
    uint8_t bytes[HEADER];
    receive(bytes, HEADER);
    struct frame frame = {
        .length = (uint32_t)get(bytes, 4),
        .kind = bytes[4],
        .flags = bytes[5],
        .content = bytes[6],
        .verb = bytes[7],
        .job = get(bytes + 8, 8),
        .attempt = (uint32_t)get(bytes + 16, 4),
        .extension = (uint32_t)get(bytes + 20, 4),
        .number = (uint32_t)get(bytes + 24, 4),
    };
    if (frame.length > 2 * LARGEST || frame.extension > frame.length)
        exit(1);
    receive(rest, frame.length);
    return frame;
}

static uint64_t smallest_divisor(uint64_t number)
{
    if (number % 2 == 0)
        return 2;
    for (uint64_t divisor = 3; divisor <= number / divisor; divisor += 2)
        if (number % divisor == 0)
            return divisor;
    return number;
}

/* One job, whose whole payload is this text. */
static void work(struct frame job, const char *text)
{
    struct timespec began, ended;
    clock_gettime(CLOCK_MONOTONIC, &began);
    char *end, result[32] = "";
    const char *why = "";
    errno = 0;
    uint64_t number = strtoull(text, &end, 10);
    struct frame outcome = {.kind = OUTCOME, .job = job.job, .attempt = job.attempt};
    if (job.content != JSON || errno != 0 || text[0] < '0' || text[0] > '9' || *end != '\0') {
        outcome.verb = FAIL;
        outcome.number = DECODE;
        why = "{\"detail\": \"this is no whole number of at most 64 bits\"}";
    } else if (number < 2) {
        outcome.verb = FAIL;
        outcome.number = ABORT;
        why = "{\"status\": 422, \"detail\": \"numbers below 2 have no smallest divisor\"}";
    } else {
        outcome.verb = NEXT;
        outcome.content = JSON;
        snprintf(result, sizeof result, "%" PRIu64, smallest_divisor(number));
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    outcome.nanoseconds = (uint64_t)((int64_t)(ended.tv_sec - began.tv_sec) * 1000000000 + ended.tv_nsec - began.tv_nsec);
    say(outcome, why, result);
}

int main(void)
{
    static uint8_t bytes[2 * LARGEST];
    char text[32];
    size_t length = 0;
    struct frame job = {0};

    say((struct frame){.kind = READY}, "{\"protocol\": 1, \"runtime\": \"C\"}", "");
    for (;;) {
        struct frame frame = hear(bytes);
        if (frame.kind == BYE)
            return 0;
        if (frame.kind != JOB && frame.kind != PART)
            continue;
        if (frame.kind == JOB) {
            job = frame;
            length = 0;
        }
        size_t count = frame.length - frame.extension;
        /* What does not fit is no number of 64 bits. It is read to its end all the same. */
        if (length + count < sizeof text)
            memcpy(text + length, bytes + frame.extension, count);
        length += count;
        if (frame.flags & MORE)
            continue;
        text[length < sizeof text ? length : 0] = '\0';
        work(job, text);
    }
}
