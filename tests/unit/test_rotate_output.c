/* One output against a fake agent on the same loop: what goes wrong first. */
#include <postern/rotate.h>

#include "fake_agent.h"
#include "rotate_world.h"
#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { TICK_MS = 5, PATIENCE_MS = 30000 };

/* The wall clock of everything in here, so much ahead. */
static int64_t wall_ahead_s;
int64_t __real_os_wall_s(void);
int64_t __wrap_os_wall_s(void);
int64_t __wrap_os_wall_s(void)
{
    return __real_os_wall_s() + wall_ahead_s;
}

struct test {
    struct rotate_world *w; /* its directory */
    struct loop *loop;
    struct fake_agent *agent;
    struct conf_rotate *conf;
    struct rotate_output *out;
    struct loop_timer tick;
    uint64_t deadline_ms;
    bool (*until)(const struct test *t);
    bool timed_out;

    /* What the output told. */
    unsigned n_changes, n_first;
    uint64_t generation;
    uint8_t leaf_sha256[32];
    unsigned freshness[ROTATE_MISSING + 1];
    unsigned notices[ROTATE_N_NOTICES];
    struct err last[ROTATE_N_NOTICES];
};

static void on_change(void *arg, struct rotate_output *out, const struct rotate_change *change)
{
    struct test *t = arg;
    (void)out;
    t->n_changes++;
    t->n_first += change->first ? 1 : 0;
    assert_true(change->set->generation > t->generation);
    t->generation = change->set->generation;
    memcpy(t->leaf_sha256, change->set->leaf_sha256, sizeof(t->leaf_sha256));
}

static void on_freshness(void *arg, struct rotate_output *out, enum rotate_freshness freshness)
{
    struct test *t = arg;
    (void)out;
    t->freshness[freshness]++;
}

static void on_notice(void *arg, struct rotate_output *out, enum rotate_notice notice,
                      const struct err *why)
{
    struct test *t = arg;
    (void)out;
    t->notices[notice]++;
    if (why != NULL) {
        t->last[notice] = *why;
    }
}

static const struct rotate_output_events events = {on_change, on_freshness, on_notice};

static void on_tick(void *arg)
{
    struct test *t = arg;
    t->timed_out = os_now_ms() > t->deadline_ms;
    if (t->timed_out || t->until(t)) {
        loop_stop(t->loop);
    } else {
        loop_timer_arm(&t->tick, TICK_MS);
    }
}

static void run(struct test *t, bool (*until)(const struct test *t))
{
    t->until = until;
    t->deadline_ms = os_now_ms() + PATIENCE_MS;
    loop_timer_arm(&t->tick, 0);
    loop_run(t->loop);
}
#define RUN_UNTIL(t, condition)                                                                    \
    do {                                                                                           \
        run(t, condition);                                                                         \
        if ((t)->timed_out) {                                                                      \
            fail_msg("%s did not happen; last write error: %s", #condition,                        \
                     (t)->last[ROTATE_WRITE_FAILED].what);                                         \
        }                                                                                          \
    } while (0)

static int setup(void **state)
{
    struct test *t = mem_must_new(struct test);
    wall_ahead_s = 0;
    t->w = rotate_world_new();
    t->loop = loop_new(NULL);
    t->agent = fake_agent_new(t->loop);
    loop_timer_init(&t->tick, t->loop, on_tick, t);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    rotate_output_free(t->out);
    conf_rotate_free(t->conf);
    fake_agent_free(t->agent);
    loop_free(t->loop);
    rotate_world_free(t->w);
    free(t);
    return 0;
}

static void start(struct test *t, const char *more)
{
    char text[600];
    struct err err = ERR_INIT;
    snprintf(text, sizeof(text), "{name: a, directory: DIR/out, %s}", more);
    t->conf = rotate_world_conf(t->w, text);
    t->conf->socket = mem_must_strdup(t->agent->path);
    t->out = rotate_output_new(t->loop, t->conf, &t->conf->outputs[0], &events, t, &err);
    struct rotate_dir *dir = rotate_dir_open(&t->conf->outputs[0], &err);
    if (t->out == NULL || dir == NULL) {
        fail_msg("%s", err.what);
    }
    rotate_output_give_dir(t->out, dir);
}

static struct rotate_output_status status(const struct test *t)
{
    struct rotate_output_status st;
    rotate_output_get_status(t->out, &st);
    return st;
}

/* The caller's to free. */
static char *file(const struct test *t, const char *name)
{
    mem_autofree char *path = mem_must_printf("%s/out/%s", t->w->dir, name);
    char *text = NULL;
    size_t len = 0;
    if (os_read_file(path, 100000, false, &text, &len, NULL) == -1) {
        return NULL;
    }
    return text;
}

static bool one_change(const struct test *t)
{
    return t->n_changes == 1;
}
static bool some_change(const struct test *t)
{
    return t->n_changes >= 1;
}
static bool two_changes(const struct test *t)
{
    return t->n_changes == 2;
}
static bool told_away(const struct test *t)
{
    return t->notices[ROTATE_AGENT_AWAY] > 0;
}
static bool told_stale(const struct test *t)
{
    return t->freshness[ROTATE_STALE] > 0;
}
static bool told_expired(const struct test *t)
{
    return t->freshness[ROTATE_EXPIRED] > 0;
}
static bool told_fresh(const struct test *t)
{
    return t->freshness[ROTATE_FRESH] > 0;
}
static bool told_denied(const struct test *t)
{
    return t->notices[ROTATE_DENIED] > 0;
}
static bool told_owner(const struct test *t)
{
    return strstr(t->last[ROTATE_WRITE_FAILED].what, "belongs to uid 48911") != NULL;
}
static bool write_failed(const struct test *t)
{
    return t->notices[ROTATE_WRITE_FAILED] > 0;
}

/* --- the agent ---------------------------------------------------------------------------------
 */
static void test_no_agent(void **state)
{
    struct test *t = *state;
    fake_agent_down(t->agent);
    start(t, "layout: separate");
    RUN_UNTIL(t, told_away);
    assert_int_equal(t->n_changes, 0);
    assert_int_equal(status(t).freshness, ROTATE_MISSING);
    assert_null(file(t, "tls.crt"));
    fake_agent_up(t->agent);
    RUN_UNTIL(t, one_change);
    assert_int_equal(t->n_first, 1);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
    assert_true(status(t).complete);
}

/* The last files stay, and it is said when they become stale and when they have ended. */
static void test_agent_away(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate, identity: {key: agent}");
    RUN_UNTIL(t, one_change);
    mem_autofree char *before = file(t, "tls.key");
    fake_agent_down(t->agent);
    wall_ahead_s = 3000; /* of 3600; stale from 2880 on */
    RUN_UNTIL(t, told_stale);
    assert_int_equal(t->freshness[ROTATE_EXPIRED], 0);
    wall_ahead_s = 3700;
    RUN_UNTIL(t, told_expired);
    mem_autofree char *after = file(t, "tls.key");
    assert_string_equal(before, after);
    assert_int_equal(t->n_changes, 1);
    wall_ahead_s = 0;
    RUN_UNTIL(t, told_fresh);
    free(t->agent->svids_message);
    t->agent->svids_message = NULL;
    fake_agent_up(t->agent);
    RUN_UNTIL(t, two_changes);
    assert_int_equal(t->generation, 2);
}

static void test_denied_keeps_files(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate, identity: {key: agent}");
    RUN_UNTIL(t, one_change);
    mem_autofree char *before = file(t, "tls.key");
    t->agent->svid_status = GRPC_PERMISSION_DENIED;
    fake_agent_end(t->agent, GRPC_PERMISSION_DENIED);
    RUN_UNTIL(t, told_denied);
    mem_autofree char *after = file(t, "tls.key");
    assert_string_equal(before, after);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
    assert_true(status(t).x509.denied);
    t->agent->svid_status = GRPC_OK;
    RUN_UNTIL(t, two_changes);
}

/* Of an agent that gives another identity than the one that is wanted. */
static void test_identity_that_is_not_offered(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate, identity: {key: agent, spiffe_id: 'spiffe://example.org/third'}");
    RUN_UNTIL(t, told_denied);
    assert_int_equal(t->n_changes, 0);
    assert_null(file(t, "tls.crt"));
}

/* An agent that cannot sign makes the key. */
static void test_foreign_agent(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_UNIMPLEMENTED;
    start(t, "layout: separate");
    RUN_UNTIL(t, one_change);
    assert_int_equal(t->notices[ROTATE_FELL_BACK], 1);
}

/* --- changes -----------------------------------------------------------------------------------
 */
static void test_pushes(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate, identity: {key: agent}");
    RUN_UNTIL(t, one_change);
    mem_autofree char *bundle = file(t, "ca.crt");
    uint8_t before[32];
    memcpy(before, t->leaf_sha256, sizeof(before));
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, two_changes);
    assert_memory_not_equal(before, t->leaf_sha256, sizeof(before));
    mem_autofree char *same = file(t, "ca.crt");
    assert_string_equal(bundle, same);
    /* What is sent again as it was is no change; another authority is. */
    fake_agent_push(t->agent, false);
    fake_agent_new_authority(t->agent);
    fake_agent_push(t->agent, true);
    t->n_changes--;
    RUN_UNTIL(t, two_changes);
    mem_autofree char *other = file(t, "ca.crt");
    assert_string_not_equal(bundle, other);
    assert_int_equal(t->generation, 3);
}

/* What stands there from an earlier daemon counts until there is more. */
static void test_restart(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate");
    RUN_UNTIL(t, one_change);
    t->out = rotate_output_free(t->out);
    t->conf = conf_rotate_free(t->conf);
    fake_agent_down(t->agent);
    start(t, "layout: separate");
    RUN_UNTIL(t, told_away);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
    assert_int_equal(status(t).set->generation, 1);
    assert_false(status(t).complete);
    fake_agent_up(t->agent);
    RUN_UNTIL(t, two_changes);
    assert_int_equal(t->n_first, 1);
}

/* --- writing -----------------------------------------------------------------------------------
 */
static void test_write_fails_and_goes_on(void **state)
{
    struct test *t = *state;
    mem_autofree char *out = mem_must_printf("%s/out", t->w->dir);
    start(t, "layout: separate, identity: {key: agent}");
    RUN_UNTIL(t, one_change);
    mem_autofree char *before = file(t, "tls.key");
    assert_int_equal(chmod(out, 0777), 0);
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, write_failed);
    mem_autofree char *after = file(t, "tls.key");
    assert_string_equal(before, after);
    assert_int_equal(t->last[ROTATE_WRITE_FAILED].code, ERR_DENIED);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
    assert_non_null(status(t).write_error);
    assert_int_equal(status(t).write_error->code, ERR_DENIED);
    assert_int_equal(chmod(out, 0755), 0);
    RUN_UNTIL(t, two_changes);
    assert_null(status(t).write_error);
    mem_autofree char *now = file(t, "tls.key");
    assert_string_not_equal(before, now);
}

static void test_passphrase_file_open_to_others(void **state)
{
    struct test *t = *state;
    char more[200];
    mem_autofree char *pass = mem_must_printf("%s/pass", t->w->dir);
    snprintf(more, sizeof(more), "layout: java, passphrase_file: %s", pass);
    FILE *f = fopen(pass, "we");
    assert_non_null(f);
    assert_true(fputs("words\n", f) >= 0);
    fclose(f);
    assert_int_equal(chmod(pass, 0644), 0);
    start(t, more);
    RUN_UNTIL(t, write_failed);
    assert_non_null(strstr(t->last[ROTATE_WRITE_FAILED].what, "one that others cannot read"));
    assert_int_equal(t->n_changes, 0);
    assert_int_equal(chmod(pass, 0600), 0);
    if (geteuid() == 0) {
        assert_int_equal(chown(pass, 48911, (gid_t)-1), 0);
        t->last[ROTATE_WRITE_FAILED].what[0] = '\0';
        RUN_UNTIL(t, told_owner);
        assert_int_equal(t->n_changes, 0);
        assert_int_equal(chown(pass, 0, (gid_t)-1), 0);
    }
    RUN_UNTIL(t, one_change);
}

/* --- the clock ---------------------------------------------------------------------------------
 */
/* Set forward beyond the end, with an agent that answers: another SVID at once. */
static void test_clock_is_set(void **state)
{
    struct test *t = *state;
    start(t, "layout: separate");
    RUN_UNTIL(t, one_change);
    wall_ahead_s = 7200;
    RUN_UNTIL(t, two_changes);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
    /* And back: nothing is taken away, and what is there is not called old. */
    wall_ahead_s = -7200;
    t->n_changes = 0;
    fake_agent_new_authority(t->agent);
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, some_change); /* one for the bundle and one for the SVID, or one for both */
    assert_true(t->generation >= 3);
    assert_int_equal(status(t).freshness, ROTATE_FRESH);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_no_agent),
        TEST(test_agent_away),
        TEST(test_denied_keeps_files),
        TEST(test_identity_that_is_not_offered),
        TEST(test_foreign_agent),
        TEST(test_pushes),
        TEST(test_restart),
        TEST(test_write_fails_and_goes_on),
        TEST(test_passphrase_file_open_to_others),
        TEST(test_clock_is_set),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
