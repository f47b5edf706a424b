/*
 * pushing-agent: a SPIFFE agent that sends new SVIDs when it is told to, for tests that cannot wait
 * for certificates to end. Serves FetchX509SVID, FetchX509Bundles and, unless --foreign, Postern's
 * SignX509SVID; to anybody who may connect.
 *
 *   pushing-agent [--ttl SECONDS] [--foreign] SPIFFE-ID...
 *
 * Prints the path of its socket. Lines on standard input: "push" sends a new SVID to every stream,
 * "authority" changes the authority and pushes, "down" and "up" take the socket away and bring it
 * back, "deny" ends all streams with PermissionDenied and refuses new ones, "allow" undoes that.
 * Each is answered by a line, "ok" and how many streams are open. It ends with its input.
 */
#include "fake_agent.h"

#include <postern/buf.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct pushing {
    struct loop *loop;
    struct fake_agent *agent;
    struct loop_io *input;
    struct buf line;
};

/* The tests' daemons run under other users. */
static void open_to_all(const struct fake_agent *a)
{
    POSTERN_ASSERT(chmod(a->dir, 0755) == 0 && chmod(a->path, 0777) == 0);
}

static void deny(struct fake_agent *a, bool yes)
{
    a->svid_status = a->bundles_status = yes ? GRPC_PERMISSION_DENIED : GRPC_OK;
    if (yes) {
        fake_agent_end(a, GRPC_PERMISSION_DENIED);
    }
}

static void obey(struct pushing *p, struct str line)
{
    struct fake_agent *a = p->agent;
    unsigned n = 0;
    if (str_eq(line, STR_LIT("push"))) {
        fake_agent_push(a, true);
    } else if (str_eq(line, STR_LIT("authority"))) {
        fake_agent_new_authority(a);
        fake_agent_push(a, true);
    } else if (str_eq(line, STR_LIT("down"))) {
        fake_agent_down(a);
    } else if (str_eq(line, STR_LIT("up"))) {
        fake_agent_up(a);
        open_to_all(a);
    } else if (str_eq(line, STR_LIT("deny")) || str_eq(line, STR_LIT("allow"))) {
        deny(a, line.p[0] == 'd');
    } else {
        printf("what?\n");
        fflush(stdout);
        return;
    }
    for (size_t i = 0; i < FAKE_STREAMS_MAX; i++) {
        n += a->streams[i] != NULL ? 1 : 0;
    }
    printf("ok %u\n", n);
    fflush(stdout);
}

static void on_input(void *arg, unsigned ready)
{
    struct pushing *p = arg;
    char bytes[256];
    (void)ready;
    ssize_t n = read(STDIN_FILENO, bytes, sizeof(bytes));
    if (n <= 0) {
        loop_stop(p->loop);
        return;
    }
    POSTERN_ASSERT(buf_append(&p->line, bytes, (size_t)n));
    const uint8_t *end;
    while (buf_len(&p->line) > 0 &&
           (end = memchr(buf_head(&p->line), '\n', buf_len(&p->line))) != NULL) {
        size_t len = (size_t)(end - buf_head(&p->line));
        obey(p, (struct str){(const char *)buf_head(&p->line), len});
        buf_consume(&p->line, len + 1);
    }
}

static int usage(void)
{
    fprintf(stderr, "usage: pushing-agent [--ttl SECONDS] [--foreign] SPIFFE-ID...\n");
    return 2;
}

int main(int argc, char **argv)
{
    struct pushing p = {.line = BUF_INIT(65536)};
    size_t n_ids = 0;
    uint64_t ttl_s = 3600;
    bool foreign = false;
    const char *ids[FAKE_IDS_MAX] = {NULL};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--foreign") == 0) {
            foreign = true;
        } else if (strcmp(argv[i], "--ttl") == 0 && i + 1 < argc) {
            if (!str_to_u64(str_of(argv[++i]), 86400, &ttl_s)) {
                return usage();
            }
        } else if (argv[i][0] != '-' && n_ids < FAKE_IDS_MAX) {
            ids[n_ids++] = argv[i];
        } else {
            return usage();
        }
    }
    if (n_ids == 0) {
        return usage();
    }
    p.loop = loop_new(NULL);
    p.agent = fake_agent_new(p.loop);
    p.agent->ttl_s = (int64_t)ttl_s;
    memcpy(p.agent->ids, ids, sizeof(ids));
    p.agent->sign_status = foreign ? GRPC_UNIMPLEMENTED : GRPC_OK;
    open_to_all(p.agent);
    printf("%s\n", p.agent->path);
    fflush(stdout);
    p.input = loop_io_new(p.loop, STDIN_FILENO, on_input, &p);
    loop_io_want(p.input, LOOP_READ);
    loop_run(p.loop);
    loop_io_free(p.input);
    buf_reset(&p.line);
    fake_agent_free(p.agent);
    loop_free(p.loop);
    return 0;
}
