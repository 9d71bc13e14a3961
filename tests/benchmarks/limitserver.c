/* The limit: the least that a server of this protocol can do. GET subscribes, POST sends the body to all subscribers,
 * each line of it as one event. It knows no filters, positions, slow readers or errors.
 *
 *   limitserver PORT each       one send per event and subscriber
 *   limitserver PORT coalesced  all events of one turn of the loop in one send per subscriber
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    int fd;
    int place;     /* among the subscribers; -1: it sends requests */
    char *request; /* what has arrived of requests that are not complete */
    size_t length, capacity;
};

static const char STREAM_HEAD[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                                  "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

static bool coalesced;
static struct connection **subscribers;
static size_t subscriber_count, subscriber_capacity;
static char *pending; /* frames that no subscriber has yet */
static size_t pending_bytes, pending_capacity;
static char input[256 * 1024];

static void *grown(void *memory, size_t *capacity, size_t needed, size_t item) {
    if (needed <= *capacity)
        return memory;
    *capacity = needed * 2;
    memory = realloc(memory, *capacity * item);
    if (memory == NULL)
        abort();
    return memory;
}

static void subscribe(struct connection *c) {
    send(c->fd, STREAM_HEAD, sizeof STREAM_HEAD - 1, MSG_NOSIGNAL);
    subscribers = grown(subscribers, &subscriber_capacity, subscriber_count + 1, sizeof *subscribers);
    c->place = (int)subscriber_count;
    subscribers[subscriber_count++] = c;
    free(c->request);
    c->request = NULL;
    c->length = c->capacity = 0;
}

static void forget(struct connection *c) {
    if (c->place >= 0) {
        subscribers[c->place] = subscribers[--subscriber_count];
        subscribers[c->place]->place = c->place;
    }
    close(c->fd);
    free(c->request);
    free(c);
}

static void send_pending(void) {
    for (size_t i = 0; i < subscriber_count; i++)
        send(subscribers[i]->fd, pending, pending_bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    pending_bytes = 0;
}

static void publish(const char *data, size_t length) {
    pending = grown(pending, &pending_capacity, pending_bytes + length + 64, 1);
    size_t framing = strlen("data: \n\n");
    pending_bytes += (size_t)sprintf(pending + pending_bytes, "%zx\r\ndata: ", length + framing);
    memcpy(pending + pending_bytes, data, length);
    pending_bytes += length;
    memcpy(pending + pending_bytes, "\n\n\r\n", 4);
    pending_bytes += 4;
    if (!coalesced)
        send_pending();
}

static void publish_lines(const char *begin, const char *end) {
    while (begin < end) {
        const char *line_end = memchr(begin, '\n', (size_t)(end - begin));
        if (line_end == NULL)
            line_end = end;
        publish(begin, (size_t)(line_end - begin));
        begin = line_end + 1;
    }
}

/* Serve all requests that have arrived completely; publications are answered by one send. */
static void serve(struct connection *c) {
    static char answers[16 * 1024];
    size_t answer_bytes = 0;
    char *begin = c->request, *end = begin + c->length;
    for (;;) {
        char *head_end = memmem(begin, (size_t)(end - begin), "\r\n\r\n", 4);
        if (head_end == NULL)
            break;
        if (*begin == 'G') {
            subscribe(c);
            return;
        }
        char *body = head_end + 4, *length = strcasestr(begin, "content-length:");
        long bytes = length != NULL && length < body ? atol(length + strlen("content-length:")) : 0;
        if (body + bytes > end)
            break;
        publish_lines(body, body + bytes);
        if (answer_bytes + sizeof ANSWER > sizeof answers) {
            send(c->fd, answers, answer_bytes, MSG_NOSIGNAL);
            answer_bytes = 0;
        }
        memcpy(answers + answer_bytes, ANSWER, sizeof ANSWER - 1);
        answer_bytes += sizeof ANSWER - 1;
        begin = body + bytes;
    }
    if (answer_bytes)
        send(c->fd, answers, answer_bytes, MSG_NOSIGNAL);
    c->length = (size_t)(end - begin);
    memmove(c->request, begin, c->length);
}

static void readable(struct connection *c) {
    ssize_t bytes = recv(c->fd, input, sizeof input, 0);
    if (bytes < 0 && errno == EAGAIN)
        return;
    if (bytes <= 0) {
        forget(c);
        return;
    }
    if (c->place >= 0)
        return; /* a subscriber has nothing more to say */
    c->request = grown(c->request, &c->capacity, c->length + (size_t)bytes + 1, 1);
    memcpy(c->request + c->length, input, (size_t)bytes);
    c->length += (size_t)bytes;
    c->request[c->length] = 0; /* for strcasestr */
    serve(c);
}

static void accept_all(int epoll, int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct connection *c = calloc(1, sizeof *c);
        if (c == NULL)
            abort();
        c->fd = fd;
        c->place = -1;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), one = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 4096) < 0) {
        perror("listening");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "limitserver PORT each|coalesced\n");
        return 2;
    }
    coalesced = strcmp(argv[2], "coalesced") == 0;
    signal(SIGPIPE, SIG_IGN);
    int listener = listen_on(atoi(argv[1])), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[512];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 512, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == NULL)
                accept_all(epoll, listener);
            else
                readable(events[i].data.ptr);
        }
        if (pending_bytes)
            send_pending();
    }
}
