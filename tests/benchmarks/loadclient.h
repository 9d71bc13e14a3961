/* What the parts of the load client share: its options, its subscribers and its publishers. */
#ifndef LOADCLIENT_H
#define LOADCLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

struct options {
    int port;                /* where the subscribers connect, on 127.0.0.1 */
    int publish_port;        /* where events are published; the same unless told otherwise */
    const char *path;        /* of the stream; a %d in it becomes the subscriber's number modulo `subjects` */
    const char *headers;     /* lines for every request, each ended by CR LF; may be empty */
    const char *stream_headers; /* as above, for the streams alone */
    const char *ready;       /* text by which a stream says that it is live; NULL: the response head */
    int subscribers;
    int concurrency;         /* how many connections are being opened at a time */
    bool churn;              /* close each connection as soon as it is ready */
    int backlog;             /* events that each subscriber must have received before it counts as connected */
    int stalled;             /* how many of the subscribers never read after they were connected */
    bool wait;               /* after connecting, wait for a line on standard input */
    double seconds, warmup;  /* of the measurement, and before it; 0 seconds: only connect */
    double connect_deadline; /* seconds */
    const char *publish;     /* path to POST to; NULL: publish nothing */
    bool hub;                /* bodies are events as TaskHub takes them; else the bare JSON object, one a line */
    bool stored;             /* TaskHub is asked to store them */
    int subjects;            /* number of subjects that events go round; 0: events have none */
    double rate;             /* events per second, or */
    int window;              /* events in flight (published, not yet delivered to all) */
    int batch;               /* events per request */
    int size;                /* bytes of an event's JSON object */
    int publishers;          /* connections that publish */
    int pipeline;            /* unanswered requests per publishing connection */
};

extern struct options options;

uint64_t now_ns(void);
_Noreturn void fail(const char *what);      /* a system call failed */
_Noreturn void give_up(const char *reason); /* anything else is wrong */
int connect_to(int port, bool nonblocking, int receive_buffer);

/* --- subscribers.c --- */

/* What happened to all subscribers together since the program started. */
struct tally {
    uint64_t connected;   /* live streams, ever */
    uint64_t refused;     /* answered with another status than 200 */
    uint64_t broken;      /* connections that ended, or could not be made */
    uint64_t deliveries;
    uint64_t repeated;    /* deliveries that came before: duplicates, or an older event after a newer one */
    uint64_t skipped;     /* events left out between two deliveries to one subscriber */
    uint64_t reads, bytes;
};

extern struct tally tally;
extern struct histogram delivery_times; /* event created → read by a subscriber; filled while `measuring` */
extern struct histogram ready_times;    /* connect() → ready (and backlog received) */
extern bool measuring;

/* Connect all; return when all are ready or `connect_deadline` is over. */
void subscribers_connect(int epoll);
void subscribers_stall(int epoll);
void subscriber_readable(int epoll, int number);
/* The fewest and the most events that one subscriber that reads has received. */
void subscribers_extremes(uint64_t *fewest, uint64_t *most);

/* --- publishers.c --- */

extern uint64_t published;          /* events sent */
extern uint64_t publish_errors;     /* requests answered with another status than 2xx */
extern struct histogram answer_times; /* request sent → answered; filled while `measuring` */

void publishers_connect(int epoll);
/* Send one request with `batch` events; false when every connection has as many unanswered as it may. */
bool publish_request(int epoll);
void publisher_ready(int epoll, int number, uint32_t epoll_events);

/* What epoll reports: a subscriber's number, a publisher's with this bit, or the timer. */
#define PUBLISHER_BIT (1ull << 40)
#define TIMER_MARK (1ull << 41)

#endif
