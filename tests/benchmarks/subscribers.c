/* Subscribers: thousands of SSE connections on one epoll, each checked for loss, repetition and order.
 *
 * Every event carries, first in its JSON object, `"t":<created, ns>,"q":<number>,"p":<publisher>`; servers must keep
 * these bytes together. A publisher numbers its events one by one, so a subscriber that gets all of them sees each
 * publisher's numbers rise by one (by the number of subjects when it listens to one of them).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loadclient.h"

enum {
    READ_BYTES = 256 * 1024,
    CARRIED_BYTES = 96, /* longer than a marker with its three numbers, and than any `ready` text */
    /* A stalled client with the kernel's large default would swallow seconds of events before anybody notices. */
    STALLED_RECEIVE_BUFFER = 16 * 1024,
};

enum state { CONNECTING, AWAITING_HEAD, AWAITING_READY, LIVE, GONE };

struct subscriber {
    int fd;
    enum state state;
    bool counted;          /* in `connected` */
    uint64_t began;        /* when connect() was called */
    uint64_t received;     /* events */
    uint64_t *last_number; /* per publisher */
    size_t distance;       /* bytes between the last two markers: where the next one probably is */
    int carried;           /* bytes of an unfinished marker, kept for the next read */
    char carry[CARRIED_BYTES];
};

struct tally tally;
struct histogram delivery_times, ready_times;
bool measuring;

static struct subscriber *subscribers;
static uint64_t *last_numbers;
static char read_area[CARRIED_BYTES + READ_BYTES];

static const char MARKER[] = "\"t\":";
enum { MARKER_BYTES = sizeof MARKER - 1 };

static void start(int epoll, int number) {
    struct subscriber *s = &subscribers[number];
    s->began = now_ns();
    s->fd = connect_to(options.port, true, number < options.stalled ? STALLED_RECEIVE_BUFFER : 0);
    s->state = CONNECTING;
    s->last_number = last_numbers + (size_t)number * (size_t)options.publishers;
    struct epoll_event event = {.events = EPOLLOUT, .data.u64 = (uint64_t)number};
    epoll_ctl(epoll, EPOLL_CTL_ADD, s->fd, &event);
}

static void leave(struct subscriber *s) {
    close(s->fd); /* which takes it out of the epoll set, too */
    s->fd = -1;
    s->state = GONE;
}

static void send_request(int epoll, int number) {
    struct subscriber *s = &subscribers[number];
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error) {
        tally.broken++;
        leave(s);
        return;
    }
    char path[512], request[4096];
    const char *place = strstr(options.path, "%d");
    if (place)
        snprintf(path, sizeof path, "%.*s%d%s", (int)(place - options.path), options.path,
                 number % (options.subjects ? options.subjects : options.subscribers), place + 2);
    else
        snprintf(path, sizeof path, "%s", options.path);
    int bytes = snprintf(request, sizeof request,
                         "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n%s%s\r\n", path,
                         options.headers, options.stream_headers);
    if (send(s->fd, request, (size_t)bytes, MSG_NOSIGNAL) != bytes) {
        tally.broken++;
        leave(s);
        return;
    }
    s->state = AWAITING_HEAD;
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = (uint64_t)number};
    epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
}

/* Keep the end of what was read, because what is looked for may have begun there. */
static void carry(struct subscriber *s, const char *from, const char *end) {
    s->carried = (int)(end - from);
    memcpy(s->carry, from, (size_t)s->carried);
}

static void carry_at_most(struct subscriber *s, const char *from, const char *end, int bytes) {
    carry(s, end - from > bytes ? end - bytes : from, end);
}

/* Read `"key":123` or `, "key": 123` at *place (json.dumps writes spaces). False when the text ends in the middle. */
static bool read_number(const char **place, const char *end, char key, uint64_t *value) {
    const char *p = *place;
    while (p < end && (*p == ',' || *p == ' '))
        p++;
    if (end - p < MARKER_BYTES)
        return false;
    if (p[0] != '"' || p[1] != key || p[2] != '"' || p[3] != ':')
        give_up("the server changed the event's data");
    p += MARKER_BYTES;
    while (p < end && *p == ' ')
        p++;
    *value = 0;
    while (p < end && *p >= '0' && *p <= '9')
        *value = *value * 10 + (uint64_t)(*p++ - '0');
    *place = p;
    return p < end;
}

static const char *find_marker(const struct subscriber *s, const char *begin, const char *previous, const char *end) {
    /* Events of one run are equally long, so the next marker is mostly as far from this one as this one was from the
     * last: looking there first saves searching through every byte, of which there are gigabytes in a second. */
    if (previous != NULL && s->distance != 0) {
        const char *guess = previous + s->distance;
        if (guess + MARKER_BYTES <= end && memcmp(guess, MARKER, MARKER_BYTES) == 0)
            return guess;
    }
    return memmem(begin, (size_t)(end - begin), MARKER, MARKER_BYTES);
}

static void count_delivery(struct subscriber *s, uint64_t created, uint64_t number, uint64_t publisher, uint64_t read_at) {
    tally.deliveries++;
    s->received++;
    if (publisher >= (uint64_t)options.publishers)
        give_up("an event of a publisher that does not exist");
    uint64_t *last = &s->last_number[publisher];
    uint64_t step = options.subjects && strstr(options.path, "%d") ? (uint64_t)options.subjects : 1;
    if (*last != 0 && number <= *last)
        tally.repeated++;
    else if (*last != 0 && number > *last + step)
        tally.skipped += (number - *last) / step - 1;
    if (number > *last)
        *last = number;
    if (measuring && read_at > created)
        histogram_add(&delivery_times, read_at - created);
}

/* Count the events in what was read. */
static void read_events(struct subscriber *s, const char *begin, const char *end, uint64_t read_at) {
    const char *previous = NULL;
    for (;;) {
        const char *marker = find_marker(s, begin, previous, end);
        if (marker == NULL) {
            carry_at_most(s, begin, end, MARKER_BYTES - 1);
            return;
        }
        const char *place = marker;
        uint64_t created, number, publisher;
        if (!read_number(&place, end, 't', &created) || !read_number(&place, end, 'q', &number) ||
            !read_number(&place, end, 'p', &publisher)) {
            carry(s, marker, end);
            return;
        }
        count_delivery(s, created, number, publisher, read_at);
        if (previous != NULL)
            s->distance = (size_t)(marker - previous);
        previous = marker;
        begin = place;
    }
}

/* The head, and the text that says that the stream is live. What follows, or precedes that text, are events. */
static const char *read_opening(struct subscriber *s, const char *begin, const char *end, uint64_t read_at) {
    if (s->state == AWAITING_HEAD) {
        const char *head_end = memmem(begin, (size_t)(end - begin), "\r\n\r\n", 4);
        if (head_end == NULL) {
            /* Heads come in one piece on loopback; of one that does not, only its end matters. */
            carry_at_most(s, begin, end, 3);
            return NULL;
        }
        if (strncmp(begin, "HTTP/1.", 7) == 0 && strncmp(begin + 8, " 200", 4) != 0) {
            tally.refused++;
            leave(s);
            return NULL;
        }
        s->state = options.ready ? AWAITING_READY : LIVE;
        begin = head_end + 4;
    }
    if (s->state == AWAITING_READY) {
        size_t length = strlen(options.ready);
        const char *ready = memmem(begin, (size_t)(end - begin), options.ready, length);
        if (ready == NULL) {
            read_events(s, begin, end, read_at); /* replayed ones; what is left over is shorter than they */
            if (s->carried < (int)length - 1)
                carry_at_most(s, begin, end, (int)length - 1);
            return NULL;
        }
        read_events(s, begin, ready, read_at);
        s->carried = 0;
        s->state = LIVE;
        begin = ready + length;
    }
    return begin;
}

static void count_if_ready(int number, uint64_t read_at) {
    struct subscriber *s = &subscribers[number];
    if (s->counted || s->state != LIVE || s->received < (uint64_t)options.backlog)
        return;
    s->counted = true;
    tally.connected++;
    histogram_add(&ready_times, read_at - s->began);
    if (!options.churn)
        return;
    if (number % 2) { /* every second one breaks off with a reset instead of a goodbye */
        struct linger reset = {.l_onoff = 1, .l_linger = 0};
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    }
    leave(s);
}

void subscriber_readable(int epoll, int number) {
    (void)epoll;
    struct subscriber *s = &subscribers[number];
    char *fresh = read_area + CARRIED_BYTES;
    ssize_t bytes = recv(s->fd, fresh, READ_BYTES, 0);
    if (bytes < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (bytes <= 0) {
        tally.broken++;
        leave(s);
        return;
    }
    uint64_t read_at = now_ns();
    tally.reads++;
    tally.bytes += (uint64_t)bytes;
    const char *begin = fresh - s->carried, *end = fresh + bytes;
    memcpy(fresh - s->carried, s->carry, (size_t)s->carried);
    s->carried = 0;
    if (s->state != LIVE)
        begin = read_opening(s, begin, end, read_at);
    if (begin != NULL)
        read_events(s, begin, end, read_at);
    count_if_ready(number, read_at);
}

void subscribers_connect(int epoll) {
    subscribers = calloc((size_t)options.subscribers, sizeof *subscribers);
    last_numbers = calloc((size_t)options.subscribers * (size_t)options.publishers, sizeof *last_numbers);
    if (subscribers == NULL || last_numbers == NULL)
        fail("calloc");
    uint64_t deadline = now_ns() + (uint64_t)(options.connect_deadline * 1e9);
    struct epoll_event events[512];
    uint64_t started = 0, all = (uint64_t)options.subscribers;
    for (;;) {
        uint64_t done = tally.connected + tally.refused + tally.broken;
        if (done >= all || now_ns() > deadline)
            return;
        for (; started < all && started - done < (uint64_t)options.concurrency; started++)
            start(epoll, (int)started);
        int count = epoll_wait(epoll, events, 512, 100);
        for (int i = 0; i < count; i++) {
            int number = (int)events[i].data.u64;
            if (subscribers[number].state == CONNECTING)
                send_request(epoll, number);
            else
                subscriber_readable(epoll, number);
        }
    }
}

void subscribers_stall(int epoll) {
    for (int i = 0; i < options.stalled && i < options.subscribers; i++)
        epoll_ctl(epoll, EPOLL_CTL_DEL, subscribers[i].fd, NULL);
}

void subscribers_extremes(uint64_t *fewest, uint64_t *most) {
    *fewest = UINT64_MAX;
    *most = 0;
    for (int i = options.stalled; i < options.subscribers; i++) {
        uint64_t received = subscribers[i].received;
        if (received < *fewest)
            *fewest = received;
        if (received > *most)
            *most = received;
    }
    if (*fewest == UINT64_MAX)
        *fewest = 0;
}
