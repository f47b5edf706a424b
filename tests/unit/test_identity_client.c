/* The identity client against a fake agent on the same loop: what goes wrong first. */
#include <postern/identity_client.h>

#include "fake_agent.h"
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { TICK_MS = 2, PATIENCE_MS = 15000, N_NOTICES = IDENTITY_EXPIRED + 1 };

struct test {
    struct loop *loop;
    struct fake_agent *agent;
    struct identity_client *client;
    struct loop_timer tick;
    uint64_t deadline_ms;
    bool (*until)(const struct test *t);
    bool timed_out;

    /* What the client told. */
    struct identity_state *state; /* a reference */
    unsigned n_states, n_withdrawn;
    unsigned notices[N_NOTICES];
    struct err last[N_NOTICES];
};

/* The wall clock of everything in here, so much ahead. */
static int64_t wall_ahead_s;
int64_t __real_os_wall_s(void);
int64_t __wrap_os_wall_s(void);
int64_t __wrap_os_wall_s(void)
{
    return __real_os_wall_s() + wall_ahead_s;
}

static void on_state(void *arg, const struct identity_state *state)
{
    struct test *t = arg;
    identity_state_unref(t->state);
    t->state = state != NULL ? identity_state_ref(state) : NULL;
    assert_ptr_equal(identity_client_state(t->client), state);
    t->n_states += state != NULL;
    t->n_withdrawn += state == NULL;
}

static void on_notice(void *arg, enum identity_notice what, const struct err *why)
{
    struct test *t = arg;
    t->notices[what]++;
    if (why != NULL) {
        t->last[what] = *why;
    }
}

static const struct identity_client_events events = {on_state, on_notice};

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

#define RUN_UNTIL(t, condition)                                                                    \
    do {                                                                                           \
        run(t, condition);                                                                         \
        if ((t)->timed_out) {                                                                      \
            struct identity_status status_now;                                                     \
            identity_client_get_status((t)->client, &status_now);                                  \
            fail_msg("%s did not happen; last error: %s", #condition, status_now.last_error.what); \
        }                                                                                          \
    } while (0)

static void run(struct test *t, bool (*until)(const struct test *t))
{
    t->until = until;
    t->deadline_ms = os_now_ms() + PATIENCE_MS;
    loop_timer_arm(&t->tick, TICK_MS);
    loop_run(t->loop);
}

static int setup(void **state)
{
    struct test *t = calloc(1, sizeof(*t));
    t->loop = loop_new(NULL);
    t->agent = fake_agent_new(t->loop);
    loop_timer_init(&t->tick, t->loop, on_tick, t);
    *state = t;
    return 0;
}

static int teardown(void **state)
{
    struct test *t = *state;
    unsigned without_header = t->agent->n_without_header;
    loop_timer_disarm(&t->tick);
    identity_client_free(t->client);
    identity_state_unref(t->state);
    fake_agent_free(t->agent);
    loop_free(t->loop);
    free(t);
    return without_header == 0 ? 0 : -1;
}

static void start(struct test *t, enum identity_key_mode key, const char *spiffe_id)
{
    char socket[128];
    struct err err = ERR_INIT;
    snprintf(socket, sizeof(socket), "unix://%s", t->agent->path);
    struct identity_client_options options = {socket, spiffe_id, key};
    t->client = identity_client_new(t->loop, &options, &events, t, &err);
    if (t->client == NULL) {
        fail_msg("%s", err.what);
    }
    assert_null(identity_client_state(t->client));
}

static struct identity_status status_of(const struct test *t)
{
    struct identity_status status;
    identity_client_get_status(t->client, &status);
    return status;
}

static bool one_state(const struct test *t)
{
    return t->n_states >= 1;
}
static bool two_states(const struct test *t)
{
    return t->n_states >= 2;
}
static bool three_states(const struct test *t)
{
    return t->n_states >= 3;
}
static bool withdrawn(const struct test *t)
{
    return t->n_withdrawn >= 1;
}
static bool told_away(const struct test *t)
{
    return t->notices[IDENTITY_AGENT_AWAY] >= 1;
}
static bool told_bad(const struct test *t)
{
    return t->notices[IDENTITY_BAD_ANSWER] >= 1;
}
static bool told_denied(const struct test *t)
{
    return t->notices[IDENTITY_DENIED] >= 1;
}
static bool told_gave_up(const struct test *t)
{
    return t->notices[IDENTITY_GAVE_UP] >= 1;
}
static bool told_trust(const struct test *t)
{
    return t->notices[IDENTITY_TRUST_CHANGED] >= 1;
}
static bool told_back(const struct test *t)
{
    return t->notices[IDENTITY_AGENT_BACK] >= 1;
}
static bool failed_thrice(const struct test *t)
{
    return status_of(t).failures_in_row >= 3;
}
static bool failed_often(const struct test *t)
{
    return status_of(t).failures_in_row >= 9;
}
static bool asked_to_sign_thrice(const struct test *t)
{
    return t->agent->n_sign >= 3;
}
static bool renewed_twice(const struct test *t)
{
    return t->notices[IDENTITY_RENEWED] >= 2;
}

/* --- what is wrong as it stands --------------------------------------------------------------- */

static void test_bad_options(void **state)
{
    struct test *t = *state;
    static const char *const sockets[] = {"",
                                          "run/agent.sock",
                                          "unix:",
                                          "unix://",
                                          "unix:agent",
                                          "unix://host/agent.sock",
                                          "tcp://1.2.3.4:80",
                                          "http://x",
                                          "unix:///a?b",
                                          "unix:///a#b"};
    for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++) {
        struct err err = ERR_INIT;
        struct identity_client_options options = {.socket = sockets[i]};
        assert_null(identity_client_new(t->loop, &options, &events, t, &err));
        assert_int_not_equal(err.code, ERR_NONE);
    }
    struct err err = ERR_INIT;
    struct identity_client_options options = {.socket = "/a", .spiffe_id = "spiffe://A/b"};
    assert_null(identity_client_new(t->loop, &options, &events, t, &err));
    assert_non_null(strstr(err.what, "not a SPIFFE ID"));
    assert_null(identity_client_free(NULL));
}

static void test_socket_forms(void **state)
{
    (void)state;
    char path[108];
    char small[4];
    static const char *const good[] = {"/run/a.sock", "unix:/run/a.sock", "unix:///run/a.sock"};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(identity_socket_path(good[i], path, sizeof(path), NULL), 0);
        assert_string_equal(path, "/run/a.sock");
        assert_int_equal(identity_socket_path(good[i], small, sizeof(small), NULL), -1);
    }
    setenv("SPIFFE_ENDPOINT_SOCKET", "unix:///run/b.sock", 1);
    assert_int_equal(identity_socket_path(NULL, path, sizeof(path), NULL), 0);
    assert_string_equal(path, "/run/b.sock");
    unsetenv("SPIFFE_ENDPOINT_SOCKET");
    struct err err = ERR_INIT;
    assert_int_equal(identity_socket_path(NULL, path, sizeof(path), &err), -1);
    assert_non_null(strstr(err.advice, "SPIFFE_ENDPOINT_SOCKET"));
}

/* --- the agent is not there ------------------------------------------------------------------- */

static void test_no_agent(void **state)
{
    struct test *t = *state;
    fake_agent_down(t->agent);
    start(t, IDENTITY_KEY_AUTO, NULL);
    RUN_UNTIL(t, failed_thrice);
    assert_int_equal(t->notices[IDENTITY_AGENT_AWAY], 1); /* told once and not each time */
    assert_non_null(strstr(t->last[IDENTITY_AGENT_AWAY].what, t->agent->path));
    assert_int_equal(t->n_states, 0);
    fake_agent_up(t->agent);
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->notices[IDENTITY_AGENT_BACK], 1);
    assert_int_equal(status_of(t).failures_in_row, 0);
}

/* The state stays while the agent is away, and its coming back with nothing new changes nothing. */
static void test_agent_restarts(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    fake_agent_down(t->agent);
    RUN_UNTIL(t, told_away);
    assert_int_equal(t->n_withdrawn, 0);
    assert_non_null(identity_client_state(t->client));
    assert_false(status_of(t).connected);
    fake_agent_up(t->agent);
    RUN_UNTIL(t, told_back);
    assert_int_equal(t->agent->n_sign, 1);
    assert_int_equal(t->n_states, 1);
    assert_int_equal(identity_client_state(t->client)->generation, 1);
}

/* An agent that lost its authority: trust changes, and the SVID is renewed at once. */
static void test_agent_restarts_with_new_authority(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    fake_agent_down(t->agent);
    fake_agent_new_authority(t->agent);
    fake_agent_up(t->agent);
    RUN_UNTIL(t, renewed_twice);
    assert_int_equal(t->n_withdrawn, 0);
    struct x509_peer peer;
    assert_int_equal(x509_verify_svid(t->state->trust, t->state->svid->leaf,
                                      t->state->svid->intermediates, true, os_wall_s(), &peer,
                                      NULL),
                     X509_OK);
}

/* Many failures, and yet an agent that is back before the end is found before the end: plain
 * backoff would have come to 10 s. */
static void test_agent_back_in_time(void **state)
{
    struct test *t = *state;
    t->agent->ttl_s = 5;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    fake_agent_down(t->agent);
    RUN_UNTIL(t, failed_often);
    fake_agent_up(t->agent);
    RUN_UNTIL(t, two_states);
    assert_int_equal(t->n_withdrawn, 0);
}

static void test_expiry(void **state)
{
    struct test *t = *state;
    t->agent->ttl_s = 2;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    fake_agent_down(t->agent);
    RUN_UNTIL(t, withdrawn);
    assert_int_equal(t->notices[IDENTITY_EXPIRED], 1);
    assert_non_null(strstr(t->last[IDENTITY_EXPIRED].what, "has expired"));
    assert_null(identity_client_state(t->client));
    assert_int_equal(status_of(t).expires_s, 0);
    t->agent->ttl_s = 3600;
    fake_agent_up(t->agent);
    RUN_UNTIL(t, two_states);
    assert_int_equal(t->state->generation, 2);
}

/* --- the agent says no ------------------------------------------------------------------------ */

static void test_denied_at_first(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_PERMISSION_DENIED;
    t->agent->bundles_status = GRPC_PERMISSION_DENIED;
    start(t, IDENTITY_KEY_AUTO, NULL);
    RUN_UNTIL(t, asked_to_sign_thrice);
    assert_int_equal(t->notices[IDENTITY_DENIED], 1);
    assert_int_equal(t->last[IDENTITY_DENIED].code, ERR_DENIED);
    assert_true(status_of(t).denied);
    t->agent->sign_status = GRPC_OK;
    t->agent->bundles_status = GRPC_OK;
    RUN_UNTIL(t, one_state);
    assert_false(status_of(t).denied);
}

/* The last entitlement goes: the stream ends with PermissionDenied, and the SVID is not used on. */
static void test_withdrawn(void **state)
{
    struct test *t = *state;
    for (int agent_key = 0; agent_key < 2; agent_key++) {
        t->n_states = t->n_withdrawn = 0;
        memset(t->notices, 0, sizeof(t->notices));
        start(t, agent_key == 1 ? IDENTITY_KEY_AGENT : IDENTITY_KEY_CSR, NULL);
        RUN_UNTIL(t, one_state);
        t->agent->sign_status = t->agent->bundles_status = t->agent->svid_status =
            GRPC_PERMISSION_DENIED;
        fake_agent_end(t->agent, GRPC_PERMISSION_DENIED);
        RUN_UNTIL(t, withdrawn);
        assert_int_equal(t->notices[IDENTITY_DENIED], 1);
        assert_int_equal(t->notices[IDENTITY_EXPIRED], 0);
        t->agent->sign_status = t->agent->bundles_status = t->agent->svid_status = GRPC_OK;
        RUN_UNTIL(t, two_states);
        t->client = identity_client_free(t->client);
    }
}

static void test_invalid_argument(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_INVALID_ARGUMENT;
    start(t, IDENTITY_KEY_AUTO, NULL);
    RUN_UNTIL(t, told_gave_up);
    struct identity_status status = status_of(t);
    assert_true(status.gave_up);
    assert_int_equal(status.next_renewal_ms, 0); /* nothing is armed any more */
    assert_int_equal(t->agent->n_sign, 1);
    assert_int_equal(t->agent->n_svids, 0);
    t->agent->sign_status = GRPC_OK;
    identity_client_renew(t->client);
    RUN_UNTIL(t, one_state);
}

static void test_unimplemented(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_UNIMPLEMENTED;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, told_gave_up);
    assert_non_null(strstr(t->last[IDENTITY_GAVE_UP].advice, "key: auto"));
    assert_int_equal(t->notices[IDENTITY_FELL_BACK], 0);
    assert_int_equal(t->agent->n_svids, 0);
}

static void test_unavailable_is_tried_again(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_UNAVAILABLE;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, asked_to_sign_thrice);
    assert_int_equal(t->agent->n_connections, 1);
    assert_int_equal(t->agent->n_bundles, 1);
    t->agent->sign_status = GRPC_OK;
    RUN_UNTIL(t, one_state);
}

/* --- the agent lies --------------------------------------------------------------------------- */

static void test_signed_for_another(void **state)
{
    struct test *t = *state;
    t->agent->sign_as = "spiffe://example.org/other";
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, asked_to_sign_thrice);
    assert_int_equal(t->n_states, 0);
    assert_non_null(strstr(t->last[IDENTITY_BAD_ANSWER].what, "spiffe://example.org/other"));
    assert_int_equal(t->notices[IDENTITY_BAD_ANSWER], 1);
    t->agent->sign_as = NULL;
    RUN_UNTIL(t, one_state);
}

static void test_junk(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_AGENT, NULL);
    RUN_UNTIL(t, one_state);
    t->agent->corrupt = true;
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_bad);
    assert_non_null(identity_client_state(t->client)); /* a bad message changes nothing */
    t->agent->corrupt = false;
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, two_states);
}

/* Seen in review: renewals were timers alone, so that a clock that was set forward left a proxy
 * with what had ended, for up to half of its life. */
static void test_clock_set_forward(void **state)
{
    struct test *t = *state;
    t->agent->ttl_s = 60;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    wall_ahead_s = 45; /* due, and not yet ended */
    RUN_UNTIL(t, two_states);
    assert_int_equal(t->n_withdrawn, 0);
    wall_ahead_s = 200; /* ended */
    RUN_UNTIL(t, withdrawn);
    assert_int_equal(t->notices[IDENTITY_EXPIRED], 1);
    RUN_UNTIL(t, three_states);
    wall_ahead_s = 0;
}

static void test_expired_from_the_agent(void **state)
{
    struct test *t = *state;
    t->agent->ttl_s = -1;
    start(t, IDENTITY_KEY_AGENT, NULL);
    RUN_UNTIL(t, told_bad);
    assert_non_null(strstr(t->last[IDENTITY_BAD_ANSWER].advice, "clock"));
    assert_int_equal(t->n_states, 0);
}

static void test_not_offered(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_AGENT, "spiffe://example.org/third");
    RUN_UNTIL(t, told_denied);
    assert_non_null(strstr(t->last[IDENTITY_DENIED].expected,
                           "spiffe://example.org/first, spiffe://example.org/second"));
    assert_int_equal(t->n_states, 0);
    t->agent->ids[2] = "spiffe://example.org/third";
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, one_state);
    assert_string_equal(t->state->svid->spiffe_id, "spiffe://example.org/third");
}

/* --- and as it should be ---------------------------------------------------------------------- */

static void test_csr(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_AUTO, NULL);
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->state->source, IDENTITY_FROM_CSR);
    assert_int_equal(t->state->generation, 1);
    assert_string_equal(t->state->svid->spiffe_id, "spiffe://example.org/first");
    assert_string_equal(t->agent->last_sign_id, "");
    assert_null(t->state->offered);
    assert_int_equal(x509_trust_count(t->state->trust), 1);
    assert_true(str_eq(x509_trust_domain(t->state->trust, 0), STR_LIT("example.org")));
    assert_int_equal(x509_trust_root_count(t->state->trust, STR_LIT("example.org")), 1);
    assert_int_equal(t->agent->n_svids, 0); /* a key of the agent's was never asked for */
    assert_int_equal(t->notices[IDENTITY_RENEWED], 1);
    assert_int_equal(t->notices[IDENTITY_AGENT_AWAY], 0);

    /* At half the life, a tenth more or less. */
    struct identity_status status = status_of(t);
    uint64_t in_ms = status.next_renewal_ms - os_now_ms();
    assert_in_range(in_ms, 1600000, 1990000);
    assert_true(status.connected);
    assert_int_equal(status.expires_s, t->state->svid->not_after_s);
}

static void test_csr_chosen(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_CSR, "spiffe://example.org/second");
    RUN_UNTIL(t, one_state);
    assert_string_equal(t->agent->last_sign_id, "spiffe://example.org/second");
    assert_string_equal(t->state->svid->spiffe_id, "spiffe://example.org/second");
}

/* Each renewal has a new key, and who holds the old state may go on with it. */
static void test_csr_renewal(void **state)
{
    struct test *t = *state;
    t->agent->ttl_s = 3;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    struct identity_state *first = identity_state_ref(t->state);
    uint64_t began_ms = os_now_ms();
    RUN_UNTIL(t, two_states);
    assert_true(os_now_ms() - began_ms < 2900);
    assert_int_equal(t->n_withdrawn, 0);
    assert_int_equal(t->state->generation, 2);
    assert_int_not_equal(EVP_PKEY_eq(first->svid->key, t->state->svid->key), 1);
    assert_string_not_equal(first->svid->serial, t->state->svid->serial);
    assert_int_equal(X509_check_private_key(first->svid->leaf, first->svid->key), 1);
    assert_int_equal(t->agent->n_bundles, 1);
    identity_state_unref(first);
}

static void test_agent_key(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_AGENT, NULL);
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->state->source, IDENTITY_FROM_AGENT);
    assert_string_equal(t->state->svid->spiffe_id, "spiffe://example.org/first");
    assert_int_equal(t->agent->n_sign, 0);
    assert_int_equal(t->agent->n_bundles, 0);
    assert_string_equal(t->state->offered[0], "spiffe://example.org/first");
    assert_string_equal(t->state->offered[1], "spiffe://example.org/second");
    assert_null(t->state->offered[2]);
    /* The same again is no news; what is new is. */
    fake_agent_push(t->agent, false);
    fake_agent_push(t->agent, true);
    RUN_UNTIL(t, two_states);
    assert_int_equal(t->n_states, 2);
    assert_int_equal(t->state->generation, 2);
}

static void test_fallback(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = GRPC_UNIMPLEMENTED;
    start(t, IDENTITY_KEY_AUTO, "spiffe://example.org/second");
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->state->source, IDENTITY_FROM_AGENT);
    assert_string_equal(t->state->svid->spiffe_id, "spiffe://example.org/second");
    assert_int_equal(t->notices[IDENTITY_FELL_BACK], 1);
    assert_non_null(strstr(t->last[IDENTITY_FELL_BACK].what, "SignX509SVID: Unimplemented"));
    assert_int_equal(t->notices[IDENTITY_AGENT_AWAY], 0);
    assert_true(status_of(t).fallback);

    /* The next agent on the socket signs. */
    fake_agent_down(t->agent);
    t->agent->sign_status = GRPC_OK;
    fake_agent_up(t->agent);
    identity_client_renew(t->client);
    RUN_UNTIL(t, two_states);
    assert_int_equal(t->state->source, IDENTITY_FROM_CSR);
    assert_false(status_of(t).fallback);
}

/* An agent without either of them is used all the same. */
static void test_fallback_without_bundles(void **state)
{
    struct test *t = *state;
    t->agent->sign_status = t->agent->bundles_status = GRPC_UNIMPLEMENTED;
    start(t, IDENTITY_KEY_AUTO, NULL);
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->notices[IDENTITY_FELL_BACK], 1);
    assert_int_equal(t->notices[IDENTITY_GAVE_UP], 0);
}

/* --- keys that are made elsewhere --------------------------------------------------------------
 */
struct maker {
    unsigned n_asked, n_refused;
};

static int make_away(void *arg, EVP_PKEY **ret_key, uint8_t **ret_request, size_t *ret_len,
                     struct err *err)
{
    struct maker *m = arg;
    m->n_asked++;
    if (m->n_refused > 0) {
        m->n_refused--;
        return err_set(err, ERR_UNAVAILABLE, "no keys now");
    }
    *ret_key = x509_key_new(err);
    assert_non_null(*ret_key);
    return x509_csr_new(*ret_key, ret_request, ret_len, err);
}

static void start_away(struct test *t, struct maker *m, enum identity_key_mode key)
{
    char socket[128];
    snprintf(socket, sizeof(socket), "unix://%s", t->agent->path);
    struct identity_client_options options = {
        .socket = socket, .key = key, .keys = {.make = make_away, .arg = m}};
    t->client = identity_client_new(t->loop, &options, &events, t, NULL);
    assert_non_null(t->client);
}

/* `auto` does not come to a key of the agent's then. */
static void test_keys_away_stay_so(void **state)
{
    struct test *t = *state;
    struct maker m = {0};
    t->agent->sign_status = GRPC_UNIMPLEMENTED;
    start_away(t, &m, IDENTITY_KEY_AUTO);
    RUN_UNTIL(t, told_gave_up);
    assert_int_equal(t->notices[IDENTITY_FELL_BACK], 0);
    assert_int_equal(t->n_states, 0);
    assert_non_null(strstr(t->last[IDENTITY_GAVE_UP].advice, "Postern's agent"));
}

static void test_keys_away(void **state)
{
    struct test *t = *state;
    struct maker m = {.n_refused = 2};
    start_away(t, &m, IDENTITY_KEY_CSR);
    RUN_UNTIL(t, one_state);
    assert_int_equal(t->state->source, IDENTITY_FROM_CSR);
    assert_int_equal(m.n_asked, 3);

    /* The key is gone: nothing is shown with it any more, and there is another. */
    EVP_PKEY *first = X509_get_pubkey(t->state->svid->leaf);
    identity_client_key_lost(t->client);
    assert_int_equal(t->n_withdrawn, 1);
    assert_null(identity_client_state(t->client));
    identity_client_key_lost(t->client); /* twice is once */
    assert_int_equal(t->n_withdrawn, 1);
    RUN_UNTIL(t, two_states);
    assert_int_equal(EVP_PKEY_eq(first, X509_get0_pubkey(t->state->svid->leaf)), 0);
    EVP_PKEY_free(first);
}

static void test_trust_changes(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_CSR, NULL);
    RUN_UNTIL(t, one_state);
    struct x509_trust *before = x509_trust_ref(t->state->trust);
    t->agent->sign_status = GRPC_UNAVAILABLE; /* so that the SVID stays as it is */
    fake_agent_new_authority(t->agent);
    fake_agent_push(t->agent, false);
    RUN_UNTIL(t, told_trust);
    assert_int_equal(t->state->generation, 2);
    assert_false(x509_trust_equal(before, t->state->trust));
    x509_trust_unref(before);
}

/* Freed in the middle of everything: nothing is called any more, nothing leaks. */
static void test_free_early(void **state)
{
    struct test *t = *state;
    start(t, IDENTITY_KEY_AUTO, NULL);
    t->client = identity_client_free(t->client);
    start(t, IDENTITY_KEY_CSR, NULL);
    t->agent->sign_status = GRPC_UNAVAILABLE;
    RUN_UNTIL(t, told_away);
    t->client = identity_client_free(t->client);
    assert_int_equal(t->n_states, 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_bad_options),
        CASE(test_socket_forms),
        CASE(test_no_agent),
        CASE(test_agent_restarts),
        CASE(test_agent_restarts_with_new_authority),
        CASE(test_agent_back_in_time),
        CASE(test_expiry),
        CASE(test_denied_at_first),
        CASE(test_withdrawn),
        CASE(test_invalid_argument),
        CASE(test_unimplemented),
        CASE(test_unavailable_is_tried_again),
        CASE(test_signed_for_another),
        CASE(test_junk),
        CASE(test_clock_set_forward),
        CASE(test_expired_from_the_agent),
        CASE(test_not_offered),
        CASE(test_csr),
        CASE(test_csr_chosen),
        CASE(test_csr_renewal),
        CASE(test_agent_key),
        CASE(test_fallback),
        CASE(test_fallback_without_bundles),
        CASE(test_keys_away_stay_so),
        CASE(test_keys_away),
        CASE(test_trust_changes),
        CASE(test_free_early),
    };
    return cmocka_run_group_tests_name("identity_client", tests, NULL, NULL);
}
