/* Publishers: connections that POST events, several unanswered at a time. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "loadclient.h"

struct publisher {
    int fd;
    uint64_t last_number; /* of its events */
    uint64_t sent, answered;
    uint64_t *sent_at;    /* of the unanswered requests: a ring of `pipeline` */
    char *output;         /* what the socket has not taken yet: output[begin..end) */
    size_t begin, end, capacity;
    int carried;
    char carry[16]; /* the beginning of a status line that has not all arrived */
};

uint64_t published, publish_errors;
struct histogram answer_times;

static struct publisher *publishers;
static char *body;
static size_t body_bytes;

static const char STATUS_LINE[] = "HTTP/1.1 ";
enum { STATUS_LINE_BYTES = sizeof STATUS_LINE - 1 };

void publishers_connect(int epoll) {
    publishers = calloc((size_t)options.publishers, sizeof *publishers);
    body = malloc((size_t)options.batch * ((size_t)options.size + 512) + 512);
    if (publishers == NULL || body == NULL)
        fail("calloc");
    for (int i = 0; i < options.publishers; i++) {
        publishers[i].fd = connect_to(options.publish_port, true, 0);
        publishers[i].sent_at = calloc((size_t)options.pipeline, sizeof(uint64_t));
        struct epoll_event event = {.events = EPOLLIN, .data.u64 = PUBLISHER_BIT | (uint64_t)i};
        epoll_ctl(epoll, EPOLL_CTL_ADD, publishers[i].fd, &event);
    }
}

static void append(const char *text, size_t bytes) {
    memcpy(body + body_bytes, text, bytes);
    body_bytes += bytes;
}

static void append_text(const char *text) { append(text, strlen(text)); }

/* One JSON object of `size` bytes. */
static void append_event(const struct publisher *p, uint64_t number) {
    char *begin = body + body_bytes;
    int bytes = sprintf(begin, "{\"t\":%lu,\"q\":%lu,\"p\":%ld,\"pad\":\"", (unsigned long)now_ns(),
                        (unsigned long)number, (long)(p - publishers));
    body_bytes += (size_t)bytes;
    for (int padding = options.size - bytes - 2; padding > 0; padding--)
        body[body_bytes++] = 'x';
    append_text("\"}");
}

static void make_body(struct publisher *p) {
    body_bytes = 0;
    bool envelope = options.hub && options.batch > 1;
    if (envelope)
        append_text("{\"events\":[");
    for (int i = 0; i < options.batch; i++) {
        uint64_t number = ++p->last_number;
        if (i > 0)
            append_text(options.hub ? "," : "\n");
        if (options.hub) {
            append_text(options.stored ? "{\"type\":\"bench.tick\",\"transient\":false,"
                                       : "{\"type\":\"bench.tick\",\"transient\":true,");
            if (options.subjects)
                body_bytes += (size_t)sprintf(body + body_bytes, "\"subject\":\"T%lu\",",
                                              (unsigned long)(number % (uint64_t)options.subjects));
            append_text("\"data\":");
        }
        append_event(p, number);
        if (options.hub)
            append_text("}");
    }
    if (envelope)
        append_text("]}");
}

static void reserve(struct publisher *p, size_t bytes) {
    if (p->begin == p->end)
        p->begin = p->end = 0;
    if (p->end + bytes <= p->capacity)
        return;
    p->capacity = (p->end + bytes) * 2;
    p->output = realloc(p->output, p->capacity);
    if (p->output == NULL)
        fail("realloc");
}

/* Hand the socket what it takes; epoll tells when it takes more. */
static void flush(int epoll, struct publisher *p) {
    uint32_t wanted = EPOLLIN;
    while (p->begin < p->end) {
        ssize_t bytes = send(p->fd, p->output + p->begin, p->end - p->begin, MSG_NOSIGNAL);
        if (bytes < 0 && errno == EAGAIN) {
            wanted |= EPOLLOUT;
            break;
        }
        if (bytes < 0)
            fail("publishing");
        p->begin += (size_t)bytes;
    }
    struct epoll_event event = {.events = wanted, .data.u64 = PUBLISHER_BIT | (uint64_t)(p - publishers)};
    epoll_ctl(epoll, EPOLL_CTL_MOD, p->fd, &event);
}

bool publish_request(int epoll) {
    struct publisher *p = &publishers[0];
    for (int i = 1; i < options.publishers; i++)
        if (publishers[i].sent - publishers[i].answered < p->sent - p->answered)
            p = &publishers[i];
    if (p->sent - p->answered >= (uint64_t)options.pipeline)
        return false;
    make_body(p);
    reserve(p, body_bytes + strlen(options.headers) + 512);
    p->end += (size_t)sprintf(p->output + p->end,
                              "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                              "Content-Length: %zu\r\n%s\r\n",
                              options.publish, body_bytes, options.headers);
    memcpy(p->output + p->end, body, body_bytes);
    p->end += body_bytes;
    p->sent_at[p->sent % (uint64_t)options.pipeline] = now_ns();
    p->sent++;
    published += (uint64_t)options.batch;
    flush(epoll, p);
    return true;
}

/* Count the answers. Bodies of answers do not contain a status line, so finding those is enough. */
static void read_answers(struct publisher *p) {
    static char area[16 + 64 * 1024];
    char *fresh = area + sizeof p->carry;
    ssize_t bytes = recv(p->fd, fresh, sizeof area - sizeof p->carry, 0);
    if (bytes < 0 && errno == EAGAIN)
        return;
    if (bytes <= 0)
        give_up("the server closed a publisher's connection");
    const char *begin = fresh - p->carried, *end = fresh + bytes;
    memcpy(fresh - p->carried, p->carry, (size_t)p->carried);
    for (;;) {
        const char *line = memmem(begin, (size_t)(end - begin), STATUS_LINE, STATUS_LINE_BYTES);
        if (line == NULL || line + STATUS_LINE_BYTES >= end) {
            const char *rest = line != NULL ? line : end - begin < STATUS_LINE_BYTES ? begin : end - STATUS_LINE_BYTES + 1;
            p->carried = (int)(end - rest);
            memcpy(p->carry, rest, (size_t)p->carried);
            return;
        }
        if (measuring)
            histogram_add(&answer_times, now_ns() - p->sent_at[p->answered % (uint64_t)options.pipeline]);
        p->answered++;
        if (line[STATUS_LINE_BYTES] != '2' && publish_errors++ == 0)
            fprintf(stderr, "a publication was refused: %.*s\n", (int)(end - line < 600 ? end - line : 600), line);
        begin = line + STATUS_LINE_BYTES;
    }
}

void publisher_ready(int epoll, int number, uint32_t epoll_events) {
    if (epoll_events & EPOLLOUT)
        flush(epoll, &publishers[number]);
    if (epoll_events & ~(uint32_t)EPOLLOUT)
        read_answers(&publishers[number]);
}
