/* The order of things after a change: tries, pauses, what a newer generation does to an older one.
 * The test is the runner; what is asked of it and what is told about it becomes one line of text.
 */
#include <postern/actions.h>

#include "actions_priv.h"

#include <postern/mem.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { LONG_MS = 20000 };

struct fake {
    struct loop *loop;
    struct conf_rotate *conf;
    struct actions *actions;
    int fd;
    struct loop_io *io;
    struct buf said;    /* everything, in order */
    const char *script; /* one letter an answer: o f t r n s(erved) l(old) x(other) u, or - to
                           hold it back */
    uint64_t held;      /* the job that was not answered yet */
    const char *until;  /* the loop stops when this has been said */
    struct loop_timer guard;
    bool late;
};

static void say(struct fake *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct fake *f, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    assert_true(buf_vprintf(&f->said, fmt, ap));
    va_end(ap);
    assert_true(buf_append(&f->said, "", 1));
    f->said.len--;
    if (f->until != NULL && strstr((const char *)buf_head(&f->said), f->until) != NULL) {
        loop_stop(f->loop);
    }
}

/* --- the runner ------------------------------------------------------------------------------- */
static void answer(struct fake *f, uint64_t job, char letter)
{
    static const char outcomes[] = "oftrcn", verdicts[] = "slxu";
    struct actions_msg_done m;
    const char *o = strchr(outcomes, letter), *v = strchr(verdicts, letter);

    actions_wire_init(&m, ACTIONS_DONE);
    m.job = job;
    m.exit_status = letter == 'f' ? 3 : -1;
    m.outcome = o != NULL ? (uint32_t)(o - outcomes) : ACTIONS_OK;
    m.verdict = v != NULL ? (uint32_t)(v - verdicts) : ACTIONS_UNREACHABLE;
    assert_int_equal(actions_send(f->fd, &m), IPC_OK);
}

static void by_script(struct fake *f, uint64_t job)
{
    char letter = *f->script;

    assert_int_not_equal(letter, 0);
    f->script++;
    if (letter == '-') {
        f->held = job;
    } else {
        answer(f, job, letter);
    }
}

static void on_request(void *arg, unsigned ready)
{
    struct fake *f = arg;
    union actions_msg m;

    (void)ready;
    while (actions_recv(f->fd, ACTIONS_TO_RUNNER, &m) == IPC_OK) {
        switch (m.head.type) {
        case ACTIONS_RUN:
            say(f, "run %u.%u g%llu%s; ", m.run.output, m.run.action,
                (unsigned long long)m.run.generation,
                m.run.digest == actions_digest(f->conf) ? "" : " of another file");
            by_script(f, m.run.job);
            break;
        case ACTIONS_VERIFY:
            assert_int_equal(m.verify.digest, actions_digest(f->conf));
            say(f, "verify %u %c%c; ", m.verify.output, m.verify.want[0],
                m.verify.has_old ? m.verify.old[0] : '-');
            by_script(f, m.verify.job);
            break;
        case ACTIONS_CANCEL:
            say(f, "cancel; ");
            assert_int_equal(m.cancel.job, f->held);
            answer(f, f->held, 'c');
            break;
        case ACTIONS_RELOAD:
            say(f, "reload; ");
            break;
        default:
            fail_msg("%s", actions_type_name(m.head.type));
        }
    }
}

/* --- events ----------------------------------------------------------------------------------- */
static void on_try(void *arg, const struct actions_try *t)
{
    say(arg, "%zu#%u %s; ", t->index, t->attempt, actions_state_name(t->state));
}
static void on_output(void *arg, const struct conf_rotate_output *output,
                      const struct conf_after *action, struct str line, uint32_t lost)
{
    (void)output;
    (void)action;
    say(arg, "line %.*s %u; ", STR_ARG(line), lost);
}
static void on_verified(void *arg, const struct conf_rotate_output *output,
                        const struct actions_verified *v)
{
    (void)output;
    say(arg, "%s; ", actions_verdict_name(v->verdict));
}
static void on_idle(void *arg)
{
    say(arg, "idle; ");
}
static void on_child(void *arg, int pid, int status, const char *text)
{
    say(arg, "child %d %d %s; ", pid, status, text);
}
static void on_gone(void *arg)
{
    say(arg, "gone; ");
}
static const struct actions_events events = {on_try,  on_output, on_verified,
                                             on_idle, on_child,  on_gone};

/* --- a case ----------------------------------------------------------------------------------- */
static void on_guard(void *arg)
{
    struct fake *f = arg;

    f->late = true;
    loop_stop(f->loop);
}

static struct conf_rotate *conf_with(const char *after)
{
    mem_autofree char *text =
        mem_must_printf("kind: Rotate\nlevel: 1\noutputs:\n- name: o\n  directory: /d\n"
                        "  layout: nginx\n%s",
                        after);
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;

    assert_int_equal(conf_parse_rotate("/f", text, strlen(text), diag, &conf), 0);
    conf_diag_free(diag);
    return conf;
}

static void begin(struct fake *f, const char *after, const char *script)
{
    struct actions_msg_loaded m;
    struct err err = ERR_INIT;
    int pair[2];

    *f = (struct fake){.said = BUF_INIT(1 << 20), .script = script};
    f->loop = loop_new(&err);
    assert_non_null(f->loop);
    f->conf = conf_with(after);
    assert_int_equal(ipc_pair(pair, &err), 0);
    f->fd = pair[1];
    actions_wire_init(&m, ACTIONS_LOADED);
    m.digest = actions_digest(f->conf);
    assert_int_equal(actions_send(f->fd, &m), IPC_OK);
    f->actions = actions_new_on(f->loop, pair[0], f->conf, &events, f, &err);
    assert_non_null(f->actions);
    f->io = loop_io_new(f->loop, f->fd, on_request, f);
    loop_io_want(f->io, LOOP_READ);
    loop_timer_init(&f->guard, f->loop, on_guard, f);
}

/* What was said until then, from the last time on. */
static const char *run_until(struct fake *f, const char *until)
{
    if (buf_len(&f->said) > 0 && strstr((const char *)buf_head(&f->said), until) != NULL) {
        return (const char *)buf_head(&f->said);
    }
    f->until = until;
    loop_timer_arm(&f->guard, LONG_MS);
    loop_run(f->loop);
    loop_timer_disarm(&f->guard);
    f->until = NULL;
    if (f->late) {
        fail_msg("never said '%s', but: %s", until, (const char *)buf_head(&f->said));
    }
    return (const char *)buf_head(&f->said);
}

static void end(struct fake *f)
{
    actions_free(f->actions);
    loop_timer_disarm(&f->guard);
    loop_io_free(f->io);
    close(f->fd);
    loop_free(f->loop);
    conf_rotate_free(f->conf);
    buf_reset(&f->said);
}

static const uint8_t leaf_a[ACTIONS_SHA256_SIZE] = "a", leaf_b[ACTIONS_SHA256_SIZE] = "b",
                     leaf_c[ACTIONS_SHA256_SIZE] = "c";

#define CMD "{command: [/c], backoff: 10ms, attempts: 3}"
#define TWO "  after: [" CMD ", " CMD "]\n"

static void expect(const char *after, const char *script, bool leaf, const char *said)
{
    struct fake f;

    begin(&f, after, script);
    actions_run(f.actions, 0, 1, leaf ? leaf_a : NULL);
    assert_string_equal(run_until(&f, "idle; "), said);
    assert_int_equal(*f.script, 0);
    assert_true(actions_idle(f.actions));
    end(&f);
}

static void test_order(void **state)
{
    (void)state;
    expect(TWO, "oo", true, "run 0.0 g1; 0#1 done; run 0.1 g1; 1#1 done; idle; ");
    expect(TWO "  verify: 'tls://h:1'\n", "oos", true,
           "run 0.0 g1; 0#1 done; run 0.1 g1; 1#1 done; verify 0 a-; served; idle; ");
    expect("  verify: 'tls://h:1'\n", "s", true, "verify 0 a-; served; idle; ");
    /* Without a certificate there is nothing to look for. */
    expect("  verify: 'tls://h:1'\n", "", false, "idle; ");
}

static void test_tries(void **state)
{
    (void)state;
    expect(TWO, "ftoo", true,
           "run 0.0 g1; 0#1 waiting; run 0.0 g1; 0#2 waiting; run 0.0 g1; 0#3 done; run 0.1 g1; "
           "1#1 done; idle; ");
    /* Given up: those behind it are skipped, and the question is asked all the same. */
    expect(TWO "  verify: 'tls://h:1'\n", "ffrl", true,
           "run 0.0 g1; 0#1 waiting; run 0.0 g1; 0#2 waiting; run 0.0 g1; 0#3 refused; 1#0 "
           "skipped; verify 0 a-; old; idle; ");
    expect("  after: [{command: [/c], attempts: 1, if_failed: continue}, " CMD "]\n", "to", true,
           "run 0.0 g1; 0#1 timed_out; run 0.1 g1; 1#1 done; idle; ");
    /* No child yet is no failure. */
    expect("  after: [{signal: {child: true}}, " CMD "]\n", "no", true,
           "run 0.0 g1; 0#1 skipped; run 0.1 g1; 1#1 done; idle; ");
}

static void test_newer_while_waiting(void **state)
{
    struct fake f;

    (void)state;
    begin(&f, "  after: [{command: [/c], backoff: 60s}, " CMD "]\n  verify: 'tls://h:1'\n", "foos");
    actions_run(f.actions, 0, 1, leaf_a);
    (void)run_until(&f, "waiting; ");
    assert_false(actions_idle(f.actions));
    actions_run(f.actions, 0, 2, leaf_b);
    assert_string_equal(run_until(&f, "idle; "),
                        "run 0.0 g1; 0#1 waiting; 0#1 superseded; 1#0 superseded; run 0.0 g2; 0#1 "
                        "done; run 0.1 g2; 1#1 done; verify 0 ba; served; idle; ");
    end(&f);
}

/* A command that runs is left to end; what follows from it is nothing. */
static void test_newer_while_running(void **state)
{
    struct fake f;

    (void)state;
    begin(&f, TWO, "-oo");
    actions_run(f.actions, 0, 1, leaf_a);
    (void)run_until(&f, "run 0.0 g1; ");
    actions_run(f.actions, 0, 2, leaf_b);
    actions_run(f.actions, 0, 3, leaf_c);
    answer(&f, f.held, 'f');
    assert_string_equal(run_until(&f, "idle; "),
                        "run 0.0 g1; 0#1 failed; 1#0 superseded; run 0.0 g3; 0#1 done; run 0.1 g3; "
                        "1#1 done; idle; ");
    end(&f);
}

static void test_newer_while_asking(void **state)
{
    struct fake f;

    (void)state;
    begin(&f, "  after: [{http: {url: 'http://h/'}}]\n  verify: 'tls://h:1'\n", "o--os");
    actions_run(f.actions, 0, 1, leaf_a);
    (void)run_until(&f, "verify 0 a-; ");
    actions_run(f.actions, 0, 2, leaf_b);
    (void)run_until(&f, "run 0.0 g2; ");
    actions_run(f.actions, 0, 3, leaf_c);
    assert_string_equal(run_until(&f, "idle; "),
                        "run 0.0 g1; 0#1 done; verify 0 a-; cancel; run 0.0 g2; cancel; 0#1 "
                        "superseded; run 0.0 g3; 0#1 done; verify 0 cb; served; idle; ");
    end(&f);
}

static void test_status(void **state)
{
    struct actions_status st;
    struct fake f;

    (void)state;
    begin(&f, "  after: [{command: [/c], attempts: 1}]\n  verify: 'tls://h:1'\n", "ouofs");
    actions_note_leaf(f.actions, 0, leaf_c);
    actions_run(f.actions, 0, 1, leaf_a);
    (void)run_until(&f, "verify 0 ac; unreachable; idle; ");
    assert_false(actions_all_well(f.actions));
    actions_get_status(f.actions, 0, &st);
    assert_int_equal(st.n_actions, 1);
    assert_int_equal(st.actions[0].state, ACTIONS_STATE_DONE);
    assert_true(st.verified.known && st.verified.verdict == ACTIONS_UNREACHABLE);
    assert_int_equal(st.n_by_verdict[ACTIONS_UNREACHABLE], 1);
    f.script = "os";
    actions_run(f.actions, 0, 2, leaf_a);
    (void)run_until(&f, "served; idle; ");
    assert_true(actions_all_well(f.actions));
    f.script = "fs";
    buf_consume(&f.said, buf_len(&f.said));
    actions_run(f.actions, 0, 3, leaf_a);
    (void)run_until(&f, "served; idle; ");
    assert_false(actions_all_well(f.actions));
    actions_get_status(f.actions, 0, &st);
    assert_int_equal(st.n_by_state[ACTIONS_STATE_DONE], 2);
    assert_int_equal(st.n_by_state[ACTIONS_STATE_FAILED], 1);
    assert_int_equal(st.n_by_verdict[ACTIONS_SERVED], 2);
    end(&f);
}

/* A runner that is gone, or says what is no message: told once, and nothing hangs. */
static void test_gone(void **state)
{
    struct fake f;

    (void)state;
    begin(&f, TWO "  verify: 'tls://h:1'\n", "-");
    actions_run(f.actions, 0, 1, leaf_a);
    (void)run_until(&f, "run 0.0 g1; ");
    assert_int_equal(ipc_send(f.fd, "nonsense", 8, -1), IPC_OK);
    assert_string_equal(run_until(&f, "gone; "), "run 0.0 g1; gone; ");
    actions_run(f.actions, 0, 2, leaf_b);
    actions_child_start(f.actions);
    end(&f);
    begin(&f, TWO, "");
    loop_io_want(f.io, 0);
    close(f.fd);
    f.fd = dup(0);
    (void)run_until(&f, "gone; ");
    end(&f);
}

/* --- reload ----------------------------------------------------------------------------------- */
/* What the runner will have said by the time that it is asked. */
static void say_loaded(struct fake *f, const struct conf_rotate *conf, bool failed)
{
    struct actions_msg_loaded m;

    actions_wire_init(&m, ACTIONS_LOADED);
    m.digest = actions_digest(conf);
    if (failed) {
        m.failed = 1;
        err_set(&m.error, ERR_CONFIG, "no");
    }
    assert_int_equal(actions_send(f->fd, &m), IPC_OK);
}

/* It may read the new file later, when its numbers mean something else: it is not asked any more.
 */
static void test_reload_unanswered(void **state)
{
    struct conf_rotate *conf = conf_with("  after: [{command: [/d], attempts: 1}]\n");
    struct err err = ERR_INIT;
    struct fake f;

    (void)state;
    begin(&f, "  after: [{command: [/c], attempts: 1}]\n", "");
    f.actions->answer_ms = 20;
    assert_int_equal(actions_reload(f.actions, conf, &err), -1);
    assert_non_null(strstr(err.what, "does not answer"));
    actions_run(f.actions, 0, 1, leaf_a);
    assert_string_equal(run_until(&f, "reload; "), "gone; 0#1 failed; idle; reload; ");
    end(&f);
    /* The same for one that has read something else. */
    begin(&f, TWO, "");
    say_loaded(&f, f.conf, false);
    assert_int_equal(actions_reload(f.actions, conf, &err), -1);
    assert_string_equal(run_until(&f, "reload; "), "gone; reload; ");
    end(&f);
    conf_rotate_free(conf);
}

static void test_reload_refused(void **state)
{
    struct conf_rotate *conf = conf_with("  after: [{command: [/d]}]\n");
    struct err err = ERR_INIT;
    struct fake f;

    (void)state;
    begin(&f, TWO, "oo");
    say_loaded(&f, f.conf, true);
    assert_int_equal(actions_reload(f.actions, conf, &err), -1);
    conf_rotate_free(conf);
    actions_run(f.actions, 0, 1, NULL);
    assert_string_equal(run_until(&f, "idle; "),
                        "reload; run 0.0 g1; 0#1 done; run 0.1 g1; 1#1 done; idle; ");
    end(&f);
}

/* A try ends when the runner has the reload before it already: the next one is the old file's. */
static void test_reload_overtaken(void **state)
{
    struct conf_rotate *conf = conf_with("  after: [{command: [/d]}, {command: [/e]}]\n"), *old;
    struct err err = ERR_INIT;
    struct fake f;

    (void)state;
    begin(&f, TWO, "--o");
    actions_run(f.actions, 0, 1, NULL);
    (void)run_until(&f, "run 0.0 g1; ");
    answer(&f, f.held, 'o');
    say_loaded(&f, conf, false);
    assert_int_equal(actions_reload(f.actions, conf, &err), 0);
    old = f.conf;
    f.conf = conf;
    assert_string_equal(run_until(&f, "run 0.1"),
                        "run 0.0 g1; 0#1 done; reload; run 0.1 g1 of another file; ");
    answer(&f, f.held, 'r');
    f.script = "oo";
    buf_consume(&f.said, buf_len(&f.said));
    actions_run(f.actions, 0, 2, NULL);
    assert_string_equal(run_until(&f, "idle; "),
                        "run 0.0 g2; 0#1 done; run 0.1 g2; 1#1 done; idle; ");
    conf_rotate_free(old);
    end(&f);
}

static void test_other_file(void **state)
{
    struct actions_msg_loaded m;
    struct err err = ERR_INIT;
    struct conf_rotate *conf = conf_with(TWO);
    struct loop *loop = loop_new(&err);
    int pair[2];

    (void)state;
    assert_int_equal(ipc_pair(pair, &err), 0);
    actions_wire_init(&m, ACTIONS_LOADED);
    m.digest = actions_digest(conf) + 1;
    assert_int_equal(actions_send(pair[1], &m), IPC_OK);
    assert_null(actions_new_on(loop, pair[0], conf, &events, NULL, &err));
    assert_non_null(strstr(err.what, "changed between two looks"));
    close(pair[1]);
    loop_free(loop);
    conf_rotate_free(conf);
}

static void test_digest(void **state)
{
    static const char *const variants[] = {
        "",
        "  after: [{command: [/c]}]\n",
        "  after: [{command: [/c, a]}]\n",
        "  after: [{command: [/ca]}]\n",
        "  after: [{command: [/c], user: '5'}]\n",
        "  after: [{command: [/c], timeout: 2s}]\n",
        "  after: [{command: [/c]}, {command: [/c]}]\n",
        "  after: [{signal: {pid_file: /c, executable: /d}}]\n",
        "  after: [{signal: {pid_file: /c, executable: /d, signal: USR1}}]\n",
        "  after: [{signal: {pid_file: /c, executable: /d, mounts: any}}]\n",
        "  after: [{systemd: {reload: a}}]\n",
        "  after: [{systemd: {restart: a}}]\n",
        "  after: [{http: {url: 'http://a/'}}]\n",
        "  after: [{http: {url: 'http://a/', expect: ['200']}}]\n",
        "  verify: 'tls://a:1'\n",
        "  verify: {url: 'tls://a:1', timeout: 2s}\n",
    };
    enum { N = sizeof(variants) / sizeof(variants[0]) };
    uint64_t digests[N];

    (void)state;
    for (int i = 0; i < N; i++) {
        struct conf_rotate *conf = conf_with(variants[i]);

        digests[i] = actions_digest(conf);
        conf_rotate_free(conf);
        for (int k = 0; k < i; k++) {
            assert_true(digests[i] != digests[k]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_tries),
        cmocka_unit_test(test_newer_while_waiting),
        cmocka_unit_test(test_newer_while_running),
        cmocka_unit_test(test_newer_while_asking),
        cmocka_unit_test(test_status),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_reload_unanswered),
        cmocka_unit_test(test_reload_refused),
        cmocka_unit_test(test_reload_overtaken),
        cmocka_unit_test(test_other_file),
        cmocka_unit_test(test_digest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
