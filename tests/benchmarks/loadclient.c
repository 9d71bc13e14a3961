/* The load client: connects SSE subscribers, publishes events, and measures how these arrive. One thread, one epoll.
 *
 * It tells each phase on standard output, a word a line, so that whoever started it can look at the server's processes
 * meanwhile: `connected`, `measuring`, `measured`; then one JSON object with its figures. load.py starts it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "loadclient.h"

/* After the measurement, what is under way may still arrive: until nothing came for so long, and at most so long. */
static const uint64_t DRAIN_QUIET_NS = 1500ull * 1000 * 1000, DRAIN_NS = 10ull * 1000 * 1000 * 1000;
/* Between two looks at the sockets, so that a publisher that must catch up does not keep subscribers waiting. */
enum { REQUESTS_AT_ONCE = 256 };

struct options options = {
    .path = "/events/stream", .headers = "", .stream_headers = "", .subscribers = 1, .concurrency = 128,
    .seconds = 4, .warmup = 1, .connect_deadline = 60, .batch = 1, .size = 200, .publishers = 1, .pipeline = 64,
};

uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

_Noreturn void fail(const char *what) {
    perror(what);
    exit(1);
}

_Noreturn void give_up(const char *reason) {
    fprintf(stderr, "%s\n", reason);
    exit(1);
}

int connect_to(int port, bool nonblocking, int receive_buffer) {
    int fd = socket(AF_INET, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0);
    if (fd < 0)
        fail("socket");
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (receive_buffer)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail("connect");
    return fd;
}

static void tell(const char *phase) {
    puts(phase);
    fflush(stdout);
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* How many deliveries one event makes; 0 without subscribers. */
static double deliveries_per_event(void) {
    if (options.subjects && strstr(options.path, "%d"))
        return (double)options.subscribers / options.subjects;
    return options.subscribers - options.stalled;
}

/* --- publishing at a rate, or by what is in flight --- */

static int timer = -1;
static uint64_t due;                    /* events that the rate asks for and that are not sent yet */
static uint64_t deliveries_before;      /* replayed ones, received while connecting */

static void start_timer(int epoll) {
    uint64_t interval = (uint64_t)(1e9 * options.batch / options.rate);
    struct timespec t = {.tv_sec = (time_t)(interval / 1000000000), .tv_nsec = (long)(interval % 1000000000)};
    struct itimerspec every = {.it_interval = t, .it_value = t};
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    if (timer < 0 || timerfd_settime(timer, 0, &every, NULL) < 0)
        fail("timerfd");
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = TIMER_MARK};
    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &event);
}

static void timer_fired(void) {
    uint64_t times;
    if (read(timer, &times, sizeof times) == sizeof times)
        due += times;
}

static void publish_what_is_due(int epoll) {
    double share = deliveries_per_event();
    for (int i = 0; i < REQUESTS_AT_ONCE; i++) {
        if (options.window && share > 0) { /* without subscribers, as many as may be unanswered are in flight */
            double delivered = (double)(tally.deliveries - deliveries_before) / share;
            if ((double)published - delivered >= options.window)
                return;
        } else if (!options.window && due == 0)
            return;
        if (!publish_request(epoll))
            return;
        if (!options.window)
            due--;
    }
}

static void serve_sockets(int epoll, int timeout_ms) {
    struct epoll_event events[64];
    int count = epoll_wait(epoll, events, 64, timeout_ms);
    for (int i = 0; i < count; i++) {
        uint64_t what = events[i].data.u64;
        if (what == TIMER_MARK)
            timer_fired();
        else if (what & PUBLISHER_BIT)
            publisher_ready(epoll, (int)(what & 0xffff), events[i].events);
        else
            subscriber_readable(epoll, (int)what);
    }
}

/* --- the measurement --- */

struct window {
    uint64_t begin, end;
    struct tally tally_before, tally_after;
    uint64_t published_before, published_after;
    double cpu; /* of this client, seconds */
};

static struct window measure(int epoll) {
    struct window w = {0};
    uint64_t begin = now_ns() + (uint64_t)(options.warmup * 1e9), end = begin + (uint64_t)(options.seconds * 1e9);
    double cpu_before = 0;
    while (now_ns() < end) {
        if (!measuring && now_ns() >= begin) {
            tell("measuring");
            measuring = true;
            cpu_before = cpu_seconds();
            w.tally_before = tally;
            w.published_before = published;
            w.begin = now_ns();
            end = w.begin + (uint64_t)(options.seconds * 1e9);
        }
        if (options.publish)
            publish_what_is_due(epoll);
        serve_sockets(epoll, 10);
    }
    w.end = now_ns();
    w.tally_after = tally;
    w.published_after = published;
    w.cpu = cpu_seconds() - cpu_before;
    measuring = false;
    tell("measured");
    return w;
}

/* Wait for what is still under way; return how many deliveries never came (negative: too many came). */
static long drain(int epoll) {
    if (timer >= 0)
        close(timer);
    uint64_t wanted = (uint64_t)((double)published * deliveries_per_event() + 0.5);
    uint64_t give_up = now_ns() + DRAIN_NS, last_news = now_ns(), seen = tally.deliveries;
    while (now_ns() < give_up && now_ns() - last_news < DRAIN_QUIET_NS && tally.deliveries - deliveries_before < wanted) {
        serve_sockets(epoll, 50);
        if (tally.deliveries != seen) {
            seen = tally.deliveries;
            last_news = now_ns();
        }
    }
    serve_sockets(epoll, 100); /* one too many would come now */
    return (long)wanted - (long)(tally.deliveries - deliveries_before);
}

static void print_quantiles(const char *name, const struct histogram *h) {
    printf(",\"%s_p50_us\":%.1f,\"%s_p99_us\":%.1f,\"%s_max_us\":%.1f", name,
           (double)histogram_quantile(h, 0.5) / 1e3, name, (double)histogram_quantile(h, 0.99) / 1e3, name,
           (double)h->max / 1e3);
}

static void report(const struct window *w, double connect_seconds, long undelivered) {
    double seconds = w->end > w->begin ? (double)(w->end - w->begin) / 1e9 : 0;
    uint64_t deliveries = w->tally_after.deliveries - w->tally_before.deliveries;
    uint64_t reads = w->tally_after.reads - w->tally_before.reads;
    uint64_t fewest, most;
    subscribers_extremes(&fewest, &most);
    printf("{\"connected\":%lu,\"refused\":%lu,\"broken\":%lu,\"connect_s\":%.4f", tally.connected, tally.refused,
           tally.broken, connect_seconds);
    print_quantiles("ready", &ready_times);
    printf(",\"seconds\":%.4f,\"published\":%lu,\"deliveries\":%lu,\"megabytes\":%.2f,\"events_per_read\":%.2f", seconds,
           w->published_after - w->published_before, deliveries,
           (double)(w->tally_after.bytes - w->tally_before.bytes) / 1e6, reads ? (double)deliveries / (double)reads : 0);
    print_quantiles("delivery", &delivery_times);
    print_quantiles("answer", &answer_times);
    printf(",\"undelivered\":%ld,\"repeated\":%lu,\"skipped\":%lu,\"publish_errors\":%lu,\"fewest\":%lu,\"most\":%lu"
           ",\"overdue\":%lu,\"published_in_all\":%lu,\"client_cpu_s\":%.4f}\n",
           undelivered, tally.repeated, tally.skipped, publish_errors, fewest, most, due, published, w->cpu);
}

/* --- options --- */

enum option_id {
    PORT = 1, PUBLISH_PORT, PATH, HEADERS, STREAM_HEADERS, READY, SUBSCRIBERS, CONCURRENCY, CHURN, BACKLOG, STALLED,
    WAIT, SECONDS, WARMUP, CONNECT_DEADLINE, PUBLISH, HUB, STORED, SUBJECTS, RATE, WINDOW, BATCH, SIZE, PUBLISHERS,
    PIPELINE,
};

static const struct option OPTIONS[] = {
    {"port", 1, 0, PORT}, {"publish-port", 1, 0, PUBLISH_PORT}, {"path", 1, 0, PATH}, {"headers", 1, 0, HEADERS},
    {"stream-headers", 1, 0, STREAM_HEADERS}, {"ready", 1, 0, READY}, {"subscribers", 1, 0, SUBSCRIBERS},
    {"concurrency", 1, 0, CONCURRENCY}, {"churn", 0, 0, CHURN}, {"backlog", 1, 0, BACKLOG}, {"stalled", 1, 0, STALLED},
    {"wait", 0, 0, WAIT}, {"seconds", 1, 0, SECONDS}, {"warmup", 1, 0, WARMUP},
    {"connect-deadline", 1, 0, CONNECT_DEADLINE}, {"publish", 1, 0, PUBLISH}, {"hub", 0, 0, HUB},
    {"stored", 0, 0, STORED}, {"subjects", 1, 0, SUBJECTS}, {"rate", 1, 0, RATE}, {"window", 1, 0, WINDOW},
    {"batch", 1, 0, BATCH}, {"size", 1, 0, SIZE}, {"publishers", 1, 0, PUBLISHERS}, {"pipeline", 1, 0, PIPELINE},
    {0},
};

static void parse_options(int argc, char **argv) {
    int id;
    while ((id = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1) {
        switch (id) {
        case PORT: options.port = atoi(optarg); break;
        case PUBLISH_PORT: options.publish_port = atoi(optarg); break;
        case PATH: options.path = optarg; break;
        case HEADERS: options.headers = optarg; break;
        case STREAM_HEADERS: options.stream_headers = optarg; break;
        case READY: options.ready = optarg; break;
        case SUBSCRIBERS: options.subscribers = atoi(optarg); break;
        case CONCURRENCY: options.concurrency = atoi(optarg); break;
        case CHURN: options.churn = true; break;
        case BACKLOG: options.backlog = atoi(optarg); break;
        case STALLED: options.stalled = atoi(optarg); break;
        case WAIT: options.wait = true; break;
        case SECONDS: options.seconds = atof(optarg); break;
        case WARMUP: options.warmup = atof(optarg); break;
        case CONNECT_DEADLINE: options.connect_deadline = atof(optarg); break;
        case PUBLISH: options.publish = optarg; break;
        case HUB: options.hub = true; break;
        case STORED: options.stored = true; break;
        case SUBJECTS: options.subjects = atoi(optarg); break;
        case RATE: options.rate = atof(optarg); break;
        case WINDOW: options.window = atoi(optarg); break;
        case BATCH: options.batch = atoi(optarg); break;
        case SIZE: options.size = atoi(optarg); break;
        case PUBLISHERS: options.publishers = atoi(optarg); break;
        case PIPELINE: options.pipeline = atoi(optarg); break;
        default: give_up("the options are the fields of `struct options` in loadclient.h");
        }
    }
    if (!options.port || (options.publish && !options.window && options.rate <= 0))
        give_up("needed: --port, and with --publish either --rate or --window");
    if (!options.publish_port)
        options.publish_port = options.port;
}

int main(int argc, char **argv) {
    parse_options(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    int epoll = epoll_create1(0);
    if (epoll < 0)
        fail("epoll_create1");

    uint64_t began = now_ns();
    subscribers_connect(epoll);
    double connect_seconds = (double)(now_ns() - began) / 1e9;
    tell("connected");
    char line[16];
    if (options.wait && fgets(line, sizeof line, stdin) == NULL)
        return 0; /* whoever started this is gone */

    struct window window = {0};
    long undelivered = 0;
    if (options.seconds > 0) {
        deliveries_before = tally.deliveries;
        subscribers_stall(epoll);
        if (options.publish)
            publishers_connect(epoll);
        if (options.publish && !options.window)
            start_timer(epoll);
        window = measure(epoll);
        undelivered = drain(epoll);
    }
    report(&window, connect_seconds, undelivered);
    return 0;
}
