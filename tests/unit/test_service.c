/* The agent's service: X.509 identities, bundles, certificate requests, and its own end. */
#include "service_world.h"

/* --- before any identity -----------------------------------------------------------------------
 */

static const struct {
    const char *path;
    bool streaming, served;
} METHODS[] = {
    {PROTO_FETCH_X509_SVID, true, true},   {PROTO_FETCH_X509_BUNDLES, true, true},
    {PROTO_SIGN_X509_SVID, false, true},   {PROTO_FETCH_JWT_SVID, false, true},
    {PROTO_FETCH_JWT_BUNDLES, true, true}, {PROTO_VALIDATE_JWT_SVID, false, true},
    {PROTO_FETCH_WIT_SVID, true, false},   {PROTO_FETCH_WIT_BUNDLES, true, false},
};

static void test_metadata(void **state)
{
    (void)state;
    static const char *const values[] = {NULL, "", "True", "TRUE", "1", "true,true", " true"};
    struct world w;
    struct client c;
    world_init(&w); /* not even ready: it comes first of all */
    client_init(&c, &w);
    for (size_t m = 0; m < sizeof(METHODS) / sizeof(METHODS[0]); m++) {
        for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
            client_ask(&c, METHODS[m].path, values[v], METHODS[m].streaming, STR_NONE);
            run_to_end(&c);
            assert_int_equal(c.status, GRPC_INVALID_ARGUMENT);
        }
    }
    assert_int_equal(w.n_reattest, 0);
    expect_end(&c, PROTO_FETCH_X509_SVID, true, STR_NONE, GRPC_UNAVAILABLE); /* starting */
    expect_end(&c, "/SpiffeWorkloadAPI/Nope", false, STR_NONE, GRPC_UNIMPLEMENTED);
    expect_end(&c, PROTO_FETCH_WIT_SVID, true, STR_NONE, GRPC_UNIMPLEMENTED);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_no_identity(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    w.n_ids = 0;
    expect_end(&c, PROTO_FETCH_X509_SVID, true, STR_NONE, GRPC_PERMISSION_DENIED);
    expect_end(&c, PROTO_FETCH_X509_BUNDLES, true, STR_NONE, GRPC_PERMISSION_DENIED);
    w.n_ids = 2;
    w.attest_outcome = AGENT_ATTEST_GONE;
    expect_end(&c, PROTO_FETCH_X509_SVID, true, STR_NONE, GRPC_PERMISSION_DENIED);
    w.attest_outcome = AGENT_ATTEST_FAILED;
    expect_end(&c, PROTO_FETCH_X509_SVID, true, STR_NONE, GRPC_UNAVAILABLE);
    assert_int_equal(w.n_reattest, 4);
    assert_int_equal(w.n_issue, 0);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_keeper_refuses(void **state)
{
    (void)state;
    static const struct {
        uint32_t outcome;
        unsigned times;
        enum grpc_status status; /* GRPC_OK: a message comes */
    } cases[] = {
        {AGENT_NO_HANDLE, 1, GRPC_PERMISSION_DENIED},
        {AGENT_NOT_ENTITLED, 1, GRPC_PERMISSION_DENIED},
        {AGENT_LIMITED, 1, GRPC_UNAVAILABLE},
        {AGENT_UNAVAILABLE, 1, GRPC_UNAVAILABLE},
        {AGENT_STALE_FACTS, 100, GRPC_UNAVAILABLE},
        {AGENT_STALE_GENERATION, 100, GRPC_UNAVAILABLE},
        {AGENT_STALE_FACTS, 1, GRPC_OK},
        {AGENT_STALE_GENERATION, 2, GRPC_OK},
    };
    struct world w;
    struct client c;
    char serial[48];
    world_start(&w);
    client_init(&c, &w);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        w.issue_outcome = cases[i].outcome;
        w.n_issue_outcomes = cases[i].times;
        client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
        if (cases[i].status == GRPC_OK) {
            run_to_messages(&c, 1);
            check_svids(&c, 2, serial);
            grpc_client_cancel(c.call);
        } else {
            run_to_end(&c);
            assert_int_equal(c.status, cases[i].status);
            assert_int_equal(c.n_messages, 0);
        }
        w.n_issue_outcomes = 0;
    }
    w.generation_runs = true; /* the list never holds still */
    expect_end(&c, PROTO_FETCH_X509_SVID, true, STR_NONE, GRPC_UNAVAILABLE);
    client_deinit(&c);
    world_deinit(&w);
}

/* --- streams -----------------------------------------------------------------------------------
 */

static void test_svid_stream(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    char first[48];
    char serial[48];
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    check_svids(&c, 2, first);
    assert_int_equal(w.n_reattest, 1);

    w.generation++; /* entries were loaded again, this caller's are the same */
    tell_changed(&w);
    while (w.n_reattest < 2) {
        run_calm(&w);
    }
    run_calm(&w);
    assert_int_equal(c.n_messages, 1);
    assert_int_equal(w.n_issue, 2);

    w.generation++;
    w.n_ids = 1; /* one was withdrawn */
    tell_changed(&w);
    run_to_messages(&c, 2);
    check_svids(&c, 1, serial);
    assert_string_not_equal(first, serial);
    assert_true(w.n_reattest >= 3);

    w.generation++;
    w.ids[0] = "spiffe://example.org/other"; /* another instead */
    tell_changed(&w);
    run_to_messages(&c, 3);
    check_svids(&c, 1, serial);

    w.bundle_generation++;
    tell_changed(&w);
    run_to_messages(&c, 4);

    w.generation++;
    w.n_ids = 0;
    tell_changed(&w);
    run_to_end(&c);
    assert_int_equal(c.status, GRPC_PERMISSION_DENIED);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_bundle_stream(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_FETCH_X509_BUNDLES, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    Workload__X509BundlesResponse *r =
        workload__x509_bundles_response__unpack(NULL, c.n_last, c.last);
    assert_non_null(r);
    assert_int_equal(r->n_bundles, 1);
    assert_string_equal(r->bundles[0]->key, "spiffe://example.org");
    assert_true(r->bundles[0]->value.len > 100);
    workload__x509_bundles_response__free_unpacked(r, NULL);
    w.generation++;
    tell_changed(&w); /* still entitled, same bundle: nothing */
    while (w.n_reattest < 2) {
        run_calm(&w);
    }
    run_calm(&w);
    assert_int_equal(c.n_messages, 1);
    w.bundle_generation++;
    tell_changed(&w);
    run_to_messages(&c, 2);
    w.generation++;
    w.n_ids = 0;
    tell_changed(&w);
    run_to_end(&c);
    assert_int_equal(c.status, GRPC_PERMISSION_DENIED);
    assert_int_equal(w.n_issue, 0);
    client_deinit(&c);
    world_deinit(&w);
}

/* --- changes, and whose turn it is --------------------------------------------------------------
 */
static void test_renewal(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    char before[48];
    char serial[48];
    world_start(&w);
    client_init(&c, &w);
    w.ttl_s = 3;
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    check_svids(&c, 2, before);
    run_to_messages(&c, 2); /* by itself, before the first one ends */
    check_svids(&c, 2, serial);
    assert_string_not_equal(before, serial);
    assert_int_equal(w.n_reattest, 2);

    /* The keeper cannot sign any more: the stream lives as long as the SVIDs, and no longer. */
    w.issue_outcome = AGENT_UNAVAILABLE;
    w.n_issue_outcomes = 1000;
    unsigned issued = w.n_issue;
    run_to_end(&c);
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    assert_int_equal(c.n_messages, 2);
    assert_true(w.n_issue > issued);
    client_deinit(&c);
    world_deinit(&w);
}

/* Seen in review: renewals were timers alone, so that a clock that was set forward left every
 * workload with what had ended, for up to half of its life. */
static void test_clock_set_forward(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    char before[48], serial[48];
    world_start(&w);
    client_init(&c, &w);
    w.ttl_s = 3600;
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    check_svids(&c, 2, before);
    service_look_at_clock(w.s); /* nothing */
    wall_ahead_s = 600;         /* nothing is due yet */
    service_look_at_clock(w.s);
    run_calm(&w);
    assert_int_equal(c.n_messages, 1);
    wall_ahead_s = 4000; /* all of it has ended */
    service_look_at_clock(w.s);
    run_to_messages(&c, 2);
    check_svids(&c, 2, serial);
    assert_string_not_equal(before, serial);
    client_deinit(&c);
    world_deinit(&w);
    wall_ahead_s = 0;
}

/* Seen in review: what found no room in the account was never sent, if nothing of the stream itself
 * was under way. */
static void test_tainted_waits_for_room(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_WATCH_TAINTED, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    run_calm(&w);
    struct grpc_account *a = &w.s->accounts[1001 % SERVICE_ACCOUNT_BUCKETS]->memory;
    a->max_bytes = a->bytes;
    uint64_t before = w.s->bundle_generation;
    w.bundle_generation++;
    tell_changed(&w);
    while (w.s->bundle_generation == before) {
        run_calm(&w);
    }
    run_calm(&w);
    assert_int_equal(c.n_messages, 1);
    a->max_bytes = 64U << 20;
    run_to_messages(&c, 2);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_caller_gone(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    struct agent_msg_handle gone;
    agent_ipc_init(&gone, AGENT_MSG_GONE, 0);
    gone.handle = HANDLE;
    send_ok(w.attestor, &gone, -1);
    run_to_end(&c);
    assert_int_equal(c.status, GRPC_PERMISSION_DENIED);
    while (!c.closed || w.n_release == 0) {
        run(&w);
    }
    assert_int_equal(w.s->n_callers, 0);
    assert_int_equal(w.s->n_calls, 0);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_client_leaves(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    w.keeper_silent = true; /* leaves while a push is being prepared */
    w.bundle_generation++;
    w.generation++;
    tell_changed(&w);
    while (w.n_unanswered == 0) {
        run_calm(&w);
    }
    client_deinit(&c);
    while (w.n_release == 0) {
        run(&w);
    }
    assert_int_equal(w.s->n_calls, 0);
    assert_null(w.s->streams);
    world_deinit(&w);
}

/* Many streams of one uid ask at once: only so many are worked for, the others wait for their turn;
 * one that is cancelled makes room. */
static void test_turns(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    w.keeper_silent = true;
    for (int i = 0; i < 40; i++) {
        client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    }
    run_calm(&w);
    assert_int_equal(w.n_reattest, SERVICE_UID_JOBS);
    assert_int_equal(w.n_unanswered, SERVICE_UID_JOBS);
    assert_int_equal(w.s->n_calls, 40);
    client_deinit(&c); /* all of them are cancelled: those that wait, too */
    run_calm(&w);
    assert_int_equal(w.s->n_calls, 0);
    assert_int_equal(w.n_reattest, SERVICE_UID_JOBS);
    world_deinit(&w);
}

/* Seen in review: what a call kept of its request was nobody's, so that thousands of calls that
 * wait for their turn held what no bound knew of. */
static void test_requests_are_charged(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t out[4096];
    char long_audience[3001];
    world_start_jwt(&w);
    client_init(&c, &w);
    w.keeper_silent = true;
    memset(long_audience, 'a', sizeof(long_audience) - 1);
    long_audience[sizeof(long_audience) - 1] = 0;
    size_t held[3];
    for (size_t i = 0; i < 3; i++) {
        client_ask(&c, PROTO_VALIDATE_JWT_SVID, "true", false,
                   validate_request(i == 2 ? long_audience : "a", "b", out));
        run_calm(&w);
        held[i] = w.s->accounts[1001 % SERVICE_ACCOUNT_BUCKETS]->memory.bytes;
    }
    assert_int_equal(w.s->n_calls, 3);
    assert_true(held[2] - held[1] >= held[1] - held[0] + sizeof(long_audience) - 2);
    client_deinit(&c);
    run_calm(&w);
    assert_int_equal(w.s->n_calls, 0);
    world_deinit(&w);
}

/* --- certificate requests ----------------------------------------------------------------------
 */

static struct str sign_request(const char *id, bool broken, EVP_PKEY *key, uint8_t out[4096])
{
    uint8_t *csr = NULL;
    size_t n = 0;
    assert_int_equal(x509_csr_new(key, &csr, &n, NULL), 0);
    csr[n - 5] ^= broken ? 1 : 0;
    Postern__V1__SignX509SVIDRequest r;
    postern__v1__sign_x509_svidrequest__init(&r);
    r.csr = (ProtobufCBinaryData){n, csr};
    r.spiffe_id = (char *)(uintptr_t)id;
    assert_true(postern__v1__sign_x509_svidrequest__get_packed_size(&r) <= 4096);
    n = postern__v1__sign_x509_svidrequest__pack(&r, out);
    free(csr);
    return (struct str){(const char *)out, n};
}

static void test_sign(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    uint8_t bytes[4096];
    world_start(&w);
    client_init(&c, &w);
    EVP_PKEY *key = x509_key_new(NULL);
    const char *path = PROTO_SIGN_X509_SVID;
    const char *second = "spiffe://example.org/second";
    expect_end(&c, path, false, STR_NONE, GRPC_INVALID_ARGUMENT);
    expect_end(&c, path, false, STR_LIT("\x0a\x7fxx"), GRPC_INVALID_ARGUMENT);
    expect_end(&c, path, false, STR_LIT("\x0a\x03xxx"), GRPC_INVALID_ARGUMENT);
    expect_end(&c, path, false, sign_request(second, true, key, bytes), GRPC_INVALID_ARGUMENT);
    expect_end(&c, path, false, sign_request("spiffe://Example.org/x", false, key, bytes),
               GRPC_INVALID_ARGUMENT);
    assert_int_equal(w.n_reattest, 0);
    expect_end(&c, path, false, sign_request("spiffe://example.org/no", false, key, bytes),
               GRPC_PERMISSION_DENIED);
    w.issue_outcome = AGENT_BAD_KEY;
    w.n_issue_outcomes = 1;
    expect_end(&c, path, false, sign_request("", false, key, bytes), GRPC_INVALID_ARGUMENT);
    w.n_ids = 0;
    expect_end(&c, path, false, sign_request("", false, key, bytes), GRPC_PERMISSION_DENIED);
    w.n_ids = 2;
    assert_int_equal(w.s->n_calls, 0);

    static const char *const asked[] = {"", "spiffe://example.org/second"};
    for (size_t i = 0; i < 2; i++) {
        expect_end(&c, path, false, sign_request(asked[i], false, key, bytes), GRPC_OK);
        Postern__V1__SignX509SVIDResponse *r =
            postern__v1__sign_x509_svidresponse__unpack(NULL, c.n_last, c.last);
        assert_non_null(r);
        struct x509_svid *svid = NULL;
        assert_int_equal(
            x509_svid_new((struct str){(const char *)r->x509_svid.data, r->x509_svid.len}, key,
                          &svid, NULL),
            0);
        assert_string_equal(svid->spiffe_id, w.ids[i]);
        assert_string_equal(r->spiffe_id, w.ids[i]);
        assert_int_equal(r->not_after, svid->not_after_s);
        x509_svid_free(svid);
        postern__v1__sign_x509_svidresponse__free_unpacked(r, NULL);
    }
    EVP_PKEY_free(key);
    client_deinit(&c);
    world_deinit(&w);
}

/* --- the process -------------------------------------------------------------------------------
 */

static void test_bad_answer(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    w.wrong_request_id = true;
    log_set_level(w.s->log, LOG_ERROR);
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    while (w.s->exit_status == 0) {
        run(&w);
    }
    assert_true(w.s->keeper.lost);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_stop(void **state)
{
    (void)state;
    struct world w;
    struct client c;
    world_start(&w);
    client_init(&c, &w);
    client_ask(&c, PROTO_FETCH_X509_SVID, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    struct agent_msg_plain stop;
    agent_ipc_init(&stop, AGENT_MSG_STOP, 0);
    send_ok(w.control, &stop, -1);
    run_to_end(&c);
    assert_int_equal(c.status, GRPC_UNAVAILABLE);
    while (!c.closed) {
        run(&w);
    }
    assert_int_equal(w.s->exit_status, 0);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_documents(void **state)
{
    (void)state;
    struct world w;
    world_start(&w);
    int fds[2];
    struct agent_msg_process p;
    agent_ipc_init(&p, AGENT_MSG_PROCESS, 0);
    p.role = AGENT_ROLE_KEEPER;
    p.pid = 12;
    p.report.seccomp = true;
    (void)snprintf(p.report.seccomp_name, sizeof(p.report.seccomp_name), "keeper");
    send_ok(w.control, &p, -1);
    struct agent_msg_listener l;
    agent_ipc_init(&l, AGENT_MSG_LISTENER, 0);
    l.which = AGENT_LISTENER_ADMIN;
    l.n_uids = 1;
    l.uids[0] = geteuid();
    struct sockaddr sa = {.sa_family = AF_UNIX}; /* autobind: a name of the kernel's choice */
    fds[0] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fds[0], &sa, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(fds[0], 4), 0);
    struct sockaddr_storage name;
    socklen_t name_len = sizeof(name);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&name, &name_len), 0);
    send_ok(w.control, &l, fds[0]);
    (void)close(fds[0]);
    run_calm(&w);

    fds[1] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[1], (const struct sockaddr *)&name, name_len), 0);
    assert_int_equal(write(fds[1], "GET status\n", 11), 11);
    run_calm(&w);
    char text[8192];
    ssize_t got = recv(fds[1], text, sizeof(text), MSG_DONTWAIT);
    assert_true(got > 0);
    (void)close(fds[1]);
    json_error_t why;
    json_t *doc = json_loadb(text, (size_t)got, 0, &why);
    if (doc == NULL) {
        fail_msg("%s at %d", why.text, why.position);
    }
    assert_string_equal(json_string_value(json_object_get(doc, "trust_domain")), "example.org");
    json_t *processes = json_object_get(doc, "processes");
    assert_int_equal(json_array_size(processes), 1);
    assert_string_equal(json_string_value(json_object_get(json_array_get(processes, 0), "role")),
                        "keeper");
    json_decref(doc);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_no_identity),
        cmocka_unit_test(test_keeper_refuses),
        cmocka_unit_test(test_svid_stream),
        cmocka_unit_test(test_bundle_stream),
        cmocka_unit_test(test_renewal),
        cmocka_unit_test(test_clock_set_forward),
        cmocka_unit_test(test_tainted_waits_for_room),
        cmocka_unit_test(test_caller_gone),
        cmocka_unit_test(test_client_leaves),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_requests_are_charged),
        cmocka_unit_test(test_sign),
        cmocka_unit_test(test_bad_answer),
        cmocka_unit_test(test_stop),
        cmocka_unit_test(test_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
