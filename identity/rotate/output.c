/*
 * output: one set of files, kept fresh. Whenever its SVID, trust, tokens or key sets are others
 * than before, all of them are written as a new generation; what is on disk stays in force until
 * then, whatever happens to the agent.
 */
#include "rotate_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <postern/os.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    WRITE_BACKOFF_MIN_MS = 500,
    WRITE_BACKOFF_MAX_MS = 60000,
    LOOK_MAX_MS = 10000, /* the wall clock may be set */
    TIDY_AFTER_MS = 61000,
    PASSPHRASE_MAX = 1024,
};

struct rotate_output {
    struct loop *loop;
    const struct conf_rotate_output *of;
    const struct rotate_output_events *events;
    void *arg;
    uint32_t warn_percent;
    struct rotate_dir *dir; /* owned */
    bool needs_x509, needs_tokens;
    struct identity_client *client; /* NULL: not needed */
    struct identity_state *state;   /* one reference */
    struct rotate_tokens_options tokens_options;
    struct rotate_tokens *tokens; /* NULL: not needed */
    bool dirty;                   /* what is known is not what is written */
    unsigned failures_in_row;
    struct err write_error; /* of the last of them */
    struct loop_timer write_timer, look_timer, tidy_timer;
    struct rotate_set *set; /* in force; NULL: none */
    enum rotate_freshness freshness;
    bool looked; /* freshness was told once */
    bool complete;
    uint64_t n_changes, n_write_failures;
    int64_t last_change_s;
};

static void notice(struct rotate_output *out, enum rotate_notice what, const struct err *why)
{
    out->events->on_notice(out->arg, out, what, why);
}

const char *rotate_notice_name(enum rotate_notice notice)
{
    static const char *const names[ROTATE_N_NOTICES] = {
        [ROTATE_AGENT_AWAY] = "agent_away",   [ROTATE_AGENT_BACK] = "agent_back",
        [ROTATE_FELL_BACK] = "fell_back",     [ROTATE_DENIED] = "denied",
        [ROTATE_GAVE_UP] = "gave_up",         [ROTATE_BAD_ANSWER] = "bad_answer",
        [ROTATE_NOT_RENEWED] = "not_renewed", [ROTATE_WRITE_FAILED] = "write_failed",
        [ROTATE_TIDY_FAILED] = "tidy_failed",
    };
    return (size_t)notice < ROTATE_N_NOTICES ? names[notice] : "?";
}

/* --- freshness ---------------------------------------------------------------------------------
 */
static void look(struct rotate_output *out)
{
    int64_t now_s = os_wall_s();
    enum rotate_freshness now =
        out->set != NULL ? rotate_set_judge(out->set, out->warn_percent, now_s) : ROTATE_MISSING;
    uint64_t delay_ms = LOOK_MAX_MS;
    if (out->set != NULL) {
        int64_t next_s = rotate_set_next_change_s(out->set, out->warn_percent, now_s);
        if (next_s < now_s + LOOK_MAX_MS / 1000) {
            delay_ms = (uint64_t)(next_s - now_s) * 1000;
        }
    }
    loop_timer_arm(&out->look_timer, delay_ms);
    /* That there is nothing yet is how each output begins, and its first set is told as a change.
     */
    bool known = out->looked && !(out->freshness == ROTATE_MISSING && now == ROTATE_FRESH);
    bool tell = known ? now != out->freshness : now == ROTATE_STALE || now == ROTATE_EXPIRED;
    out->looked = true;
    out->freshness = now;
    if (tell) {
        out->events->on_freshness(out->arg, out, now);
    }
}

static void on_look(void *arg)
{
    look(arg);
}

/* --- the passphrase ----------------------------------------------------------------------------
 */
static int check_passphrase_file(int fd, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) == -1) {
        err_sys(err, "cannot look at the passphrase's file");
        return err_where(err, "%s", path);
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 0007) != 0) {
        err_set(err, ERR_DENIED, "the passphrase's file is not one that others cannot read");
        err_advise(err, "chmod o= it");
        return err_where(err, "%s", path);
    }
    if (st.st_uid != 0 && st.st_uid != geteuid()) {
        err_set(err, ERR_DENIED, "the passphrase's file belongs to uid %u", (unsigned)st.st_uid);
        err_advise(err, "give it to root, or to the daemon's own user");
        return err_where(err, "%s", path);
    }
    return 0;
}

/* At most size bytes into secret memory; -1: it cannot be read. */
static ssize_t read_all(int fd, char *ret, size_t size)
{
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, ret + len, size - len);
        if (n == 0) {
            break;
        }
        if (n == -1 && errno != EINTR) {
            return -1;
        }
        len += n > 0 ? (size_t)n : 0;
    }
    return (ssize_t)len;
}

/* Secret memory, the caller's; one newline at the end does not count. */
static char *read_passphrase(const struct rotate_output *out, struct err *err)
{
    const char *path = out->of->passphrase_file;
    if (path == NULL) {
        return mem_secret_alloc(1);
    }
    /* What is looked at is what is read. A FIFO would wait for a writer. */
    os_autofd int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd == -1) {
        err_sys(err, "cannot read the passphrase");
        err_where(err, "%s", path);
        return NULL;
    }
    if (check_passphrase_file(fd, path, err) == -1) {
        return NULL;
    }
    char *ret = mem_secret_alloc(PASSPHRASE_MAX + 2);
    POSTERN_ASSERT(ret != NULL);
    ssize_t len = read_all(fd, ret, PASSPHRASE_MAX + 1);
    if (len < 0) {
        err_sys(err, "cannot read the passphrase");
    } else if (len > PASSPHRASE_MAX) {
        err_set(err, ERR_LIMIT, "a passphrase has at most %d bytes", PASSPHRASE_MAX);
    } else if (memchr(ret, '\0', (size_t)len) != NULL) {
        err_set(err, ERR_CONFIG, "a passphrase holds no NUL");
    } else {
        ret[len > 0 && ret[len - 1] == '\n' ? len - 1 : len] = '\0';
        return ret;
    }
    err_where(err, "%s", path);
    mem_secret_free(ret);
    return NULL;
}

/* --- the change --------------------------------------------------------------------------------
 */
static bool is_complete(const struct rotate_output *out)
{
    return (!out->needs_x509 || out->state != NULL) &&
           (!out->needs_tokens || rotate_tokens_complete(out->tokens));
}

static int make_files(struct rotate_output *out, struct rotate_files **ret, struct err *err)
{
    char *passphrase = read_passphrase(out, err);
    if (passphrase == NULL) {
        return -1;
    }
    struct rotate_material m = {.x509 = out->needs_x509 ? out->state : NULL,
                                .passphrase = passphrase,
                                .now_s = os_wall_s()};
    if (out->tokens != NULL) {
        m.tokens = rotate_tokens_get(out->tokens);
        m.key_sets = rotate_tokens_key_sets(out->tokens)->items;
        m.n_key_sets = rotate_tokens_key_sets(out->tokens)->n;
        m.spiffe_id = rotate_tokens_id(out->tokens);
    }
    if (m.x509 != NULL) {
        m.spiffe_id = m.x509->svid->spiffe_id;
    }
    int rc = rotate_files_new(out->of, &m, ret, err);
    mem_secret_free(passphrase);
    return rc;
}

static void write_failed(struct rotate_output *out, const struct err *why)
{
    uint64_t delay_ms = WRITE_BACKOFF_MIN_MS;
    for (unsigned i = 0; i < out->failures_in_row && delay_ms < WRITE_BACKOFF_MAX_MS; i++) {
        delay_ms *= 2;
    }
    delay_ms = delay_ms < WRITE_BACKOFF_MAX_MS ? delay_ms : WRITE_BACKOFF_MAX_MS;
    out->failures_in_row++;
    out->n_write_failures++;
    out->write_error = *why;
    out->dirty = true;
    loop_timer_arm(&out->write_timer, delay_ms / 2 + os_random_below(delay_ms / 2 + 1));
    notice(out, ROTATE_WRITE_FAILED, why);
}

/* It is in force, whatever else there may be to say. */
static void changed(struct rotate_output *out, const struct rotate_files *files,
                    uint64_t generation, uint64_t now_ms)
{
    bool first = out->set == NULL;
    if (first) {
        out->set = mem_must_new(struct rotate_set);
    }
    *out->set = *rotate_files_set(files);
    out->set->generation = generation;
    out->set->written_s = (int64_t)(now_ms / 1000);
    out->complete = true;
    out->n_changes++;
    out->last_change_s = out->set->written_s;
    look(out);
    const struct rotate_change change = {.output = out->of, .set = out->set, .first = first};
    out->events->on_change(out->arg, out, &change);
}

static void tidy(struct rotate_output *out)
{
    struct err err = ERR_INIT;
    if (rotate_dir_tidy(out->dir, os_wall_ms(), &err) == -1) {
        notice(out, ROTATE_TIDY_FAILED, &err);
    }
}

static void on_tidy(void *arg)
{
    struct rotate_output *out = arg;
    if (out->dir != NULL) {
        tidy(out);
    }
}

static void write_now(struct rotate_output *out)
{
    mem_auto(rotate_files_free) struct rotate_files *files = NULL;
    struct err err = ERR_INIT;
    uint64_t generation = 0;
    uint64_t now_ms = os_wall_ms();
    loop_timer_disarm(&out->write_timer);
    if (make_files(out, &files, &err) == -1) {
        write_failed(out, &err);
        return;
    }
    int rc = rotate_dir_publish(out->dir, files, now_ms, &generation, &err);
    if (generation != 0) {
        out->dirty = false;
        changed(out, files, generation, now_ms);
    }
    if (rc == -1) {
        write_failed(out, &err);
        return;
    }
    out->failures_in_row = 0;
    tidy(out);
    loop_timer_arm(&out->tidy_timer, TIDY_AFTER_MS);
}

/* At the end of the turn: what comes together is written together. */
static void on_write(void *arg)
{
    struct rotate_output *out = arg;
    if (out->dirty && out->dir != NULL && is_complete(out)) {
        write_now(out);
    }
}

static void news(struct rotate_output *out)
{
    out->dirty = true;
    loop_timer_arm(&out->write_timer, 0);
}

/* --- what comes --------------------------------------------------------------------------------
 */
static void on_state(void *arg, const struct identity_state *state)
{
    struct rotate_output *out = arg;
    identity_state_unref(out->state);
    out->state = state != NULL ? identity_state_ref(state) : NULL;
    if (state == NULL) {
        return; /* the files stay */
    }
    if (out->tokens != NULL) {
        rotate_tokens_set_id(out->tokens, state->svid->spiffe_id);
    }
    if (out->needs_x509) {
        news(out);
    }
}

static void on_identity_notice(void *arg, enum identity_notice what, const struct err *why)
{
    static const enum rotate_notice as[] = {
        [IDENTITY_FELL_BACK] = ROTATE_FELL_BACK,   [IDENTITY_AGENT_AWAY] = ROTATE_AGENT_AWAY,
        [IDENTITY_AGENT_BACK] = ROTATE_AGENT_BACK, [IDENTITY_DENIED] = ROTATE_DENIED,
        [IDENTITY_GAVE_UP] = ROTATE_GAVE_UP,       [IDENTITY_BAD_ANSWER] = ROTATE_BAD_ANSWER,
        [IDENTITY_EXPIRED] = ROTATE_NOT_RENEWED,
    };
    if (what != IDENTITY_RENEWED && what != IDENTITY_TRUST_CHANGED) {
        notice(arg, as[what], why);
    }
}

static void on_tokens_change(void *arg)
{
    news(arg);
}

static void on_tokens_trouble(void *arg, const struct err *why)
{
    enum rotate_notice what = why == NULL                 ? ROTATE_AGENT_BACK
                              : why->code == ERR_DENIED   ? ROTATE_DENIED
                              : why->code == ERR_PROTOCOL ? ROTATE_BAD_ANSWER
                                                          : ROTATE_AGENT_AWAY;
    notice(arg, what, why);
}

static const struct identity_client_events identity_events = {on_state, on_identity_notice};
static const struct rotate_tokens_events tokens_events = {on_tokens_change, on_tokens_trouble};

/* --- the owner's side --------------------------------------------------------------------------
 */
static void find_needs(struct rotate_output *out)
{
    for (size_t i = 0; i < out->of->n_files; i++) {
        enum conf_rotate_what what = out->of->files[i].what;
        out->needs_x509 = out->needs_x509 || conf_rotate_is_x509(what);
        out->needs_tokens = out->needs_tokens || !conf_rotate_is_x509(what);
    }
}

static enum identity_key_mode key_mode(enum conf_key_mode key)
{
    return key == CONF_KEY_CSR     ? IDENTITY_KEY_CSR
           : key == CONF_KEY_AGENT ? IDENTITY_KEY_AGENT
                                   : IDENTITY_KEY_AUTO;
}

static int start_sources(struct rotate_output *out, const struct conf_rotate *conf, struct err *err)
{
    if (out->needs_tokens) {
        out->tokens_options = (struct rotate_tokens_options){
            .socket = conf->socket, .renew_at = conf->renew_at, .renew_jitter = conf->renew_jitter};
        out->tokens =
            rotate_tokens_new(out->loop, out->of, &out->tokens_options, &tokens_events, out, err);
        if (out->tokens == NULL) {
            return -1;
        }
        /* Else when the SVID says whose. */
        if (out->of->spiffe_id != NULL || !out->needs_x509) {
            rotate_tokens_set_id(out->tokens, out->of->spiffe_id);
        }
    }
    if (out->needs_x509) {
        const struct identity_client_options options = {.socket = conf->socket,
                                                        .spiffe_id = out->of->spiffe_id,
                                                        .key = key_mode(out->of->key),
                                                        .renew_at = conf->renew_at,
                                                        .renew_jitter = conf->renew_jitter};
        out->client = identity_client_new(out->loop, &options, &identity_events, out, err);
        if (out->client == NULL) {
            return -1;
        }
    }
    return 0;
}

/* What an earlier daemon left is in force. */
static void read_set(struct rotate_output *out)
{
    struct rotate_set *set = mem_must_new(struct rotate_set);
    out->freshness = rotate_published_read(out->of, out->warn_percent, os_wall_s(), set, NULL);
    if (out->freshness == ROTATE_MISSING) {
        free(set);
    } else {
        out->set = set;
    }
}

MEM_DEFINE_CLEANUP(struct rotate_output, rotate_output_free)

struct rotate_output *rotate_output_new(struct loop *loop, const struct conf_rotate *conf,
                                        const struct conf_rotate_output *o,
                                        const struct rotate_output_events *events, void *arg,
                                        struct err *err)
{
    mem_auto(rotate_output_free) struct rotate_output *out = mem_must_new(struct rotate_output);
    out->loop = loop;
    out->of = o;
    out->events = events;
    out->arg = arg;
    out->warn_percent = conf->warn_before_expiry;
    loop_timer_init(&out->write_timer, loop, on_write, out);
    loop_timer_init(&out->look_timer, loop, on_look, out);
    loop_timer_init(&out->tidy_timer, loop, on_tidy, out);
    find_needs(out);
    if (start_sources(out, conf, err) == -1) {
        return NULL;
    }
    read_set(out);
    loop_timer_arm(&out->look_timer, 0);
    loop_timer_arm(&out->tidy_timer, TIDY_AFTER_MS);
    struct rotate_output *ret = out;
    out = NULL;
    return ret;
}

struct rotate_output *rotate_output_free(struct rotate_output *out)
{
    if (out != NULL) {
        loop_timer_disarm(&out->write_timer);
        loop_timer_disarm(&out->look_timer);
        loop_timer_disarm(&out->tidy_timer);
        identity_client_free(out->client);
        rotate_tokens_free(out->tokens);
        identity_state_unref(out->state);
        rotate_dir_close(out->dir);
        free(out->set);
        free(out);
    }
    return NULL;
}

void rotate_output_give_dir(struct rotate_output *out, struct rotate_dir *dir)
{
    POSTERN_ASSERT(out->dir == NULL);
    rotate_dir_use(dir, out->of);
    out->dir = dir;
    if (out->dirty) {
        loop_timer_arm(&out->write_timer, 0);
    }
}

struct rotate_dir *rotate_output_take_dir(struct rotate_output *out)
{
    struct rotate_dir *dir = out->dir;
    out->dir = NULL;
    return dir;
}

void rotate_output_get_status(const struct rotate_output *out, struct rotate_output_status *ret)
{
    *ret = (struct rotate_output_status){.output = out->of,
                                         .set = out->set,
                                         .freshness = out->freshness,
                                         .complete = out->complete,
                                         .n_changes = out->n_changes,
                                         .n_write_failures = out->n_write_failures,
                                         .write_error =
                                             out->failures_in_row > 0 ? &out->write_error : NULL,
                                         .last_change_s = out->last_change_s,
                                         .needs_x509 = out->needs_x509};
    if (out->client != NULL) {
        identity_client_get_status(out->client, &ret->x509);
    }
}
