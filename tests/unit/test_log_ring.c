/* The ring below a worker's log, with both threads at work: lines stay whole and in order, and
 * those that did not fit are counted. */
#include <postern/log.h>

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

enum { LINES = 20000 };

struct reader {
    int fd;
    uint64_t lines;
    long last;
    bool broken;
};

static void *write_lines(void *arg)
{
    struct log *log = arg;
    for (int i = 1; i <= LINES; i++) {
        log_msg(log, LOG_INFO, "line", "%d", i);
    }
    log_msg(log, LOG_ERROR, "last", "end");
    return NULL;
}

/* Reads until the pipe ends; every line must be one object, its number larger than the one before.
 */
static void *read_lines(void *arg)
{
    struct reader *r = arg;
    FILE *f = fdopen(r->fd, "r");
    char line[1024];
    while (fgets(line, sizeof(line), f) != NULL) {
        long number = 0;
        const char *message = strstr(line, "\"message\":\"");
        r->broken |= strncmp(line, "{\"ts\":", 6) != 0 || message == NULL ||
                     strcmp(line + strlen(line) - 3, "\"}\n") != 0;
        if (message != NULL && sscanf(message + 11, "%ld", &number) == 1) {
            r->broken |= number <= r->last;
            r->last = number;
        }
        r->lines++;
    }
    fclose(f);
    return NULL;
}

static void test_ring_between_threads(void **state)
{
    (void)state;
    int p[2];
    assert_int_equal(pipe(p), 0);
    int wake = eventfd(0, EFD_NONBLOCK);
    struct log *log = log_new_ring(16384, wake, LOG_INFO, "w");
    struct reader r = {.fd = p[0]};
    pthread_t writer;
    pthread_t reader;
    assert_int_equal(pthread_create(&reader, NULL, read_lines, &r), 0);
    assert_int_equal(pthread_create(&writer, NULL, write_lines, log), 0);
    /* Only the wake-up says that there is something: a lost one would stop this. */
    uint64_t lost = 0;
    bool joined = false;
    bool ended = false;
    while (!ended) {
        joined = joined || pthread_tryjoin_np(writer, NULL) == 0;
        struct pollfd w = {.fd = wake, .events = POLLIN};
        int ready = poll(&w, 1, 200);
        uint64_t count;
        if (ready == 1) {
            assert_int_equal(read(wake, &count, sizeof(count)), sizeof(count));
            lost += log_drain(log, p[1]);
        }
        ended = ready == 0 && joined; /* the writer had ended before this wait */
    }
    close(p[1]);
    pthread_join(reader, NULL);
    lost += log_drain(log, -1); /* counts only: everything else was written after its wake-up */
    assert_false(r.broken);
    assert_true(r.lines + lost == LINES + 1);
    assert_true(r.lines > 0);
    log_free(log);
    close(wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_ring_between_threads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
