/* The agent's service: JWT-SVIDs and the keys that judge them. */
#include "service_world.h"

static void test_jwt_refusals(void **state)
{
    static const struct {
        uint32_t outcome;
        unsigned times;
        enum grpc_status status;
    } cases[] = {
        {AGENT_NO_HANDLE, 1, GRPC_PERMISSION_DENIED},
        {AGENT_NOT_ENTITLED, 1, GRPC_PERMISSION_DENIED},
        {AGENT_QUARANTINED, 1, GRPC_PERMISSION_DENIED},
        {AGENT_BAD_AUDIENCE, 1, GRPC_INVALID_ARGUMENT},
        {AGENT_LIMITED, 1, GRPC_UNAVAILABLE},
        {AGENT_UNAVAILABLE, 1, GRPC_UNAVAILABLE},
        {AGENT_STALE_FACTS, 100, GRPC_UNAVAILABLE},
        {AGENT_STALE_GENERATION, 100, GRPC_UNAVAILABLE},
        {AGENT_STALE_FACTS, 1, GRPC_OK},
        {AGENT_STALE_GENERATION, 2, GRPC_OK},
    };
    struct world w;
    struct client c;
    uint8_t out[4096];
    (void)state;
    world_start(&w); /* no key for tokens */
    client_init(&c, &w);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("a", "", out), GRPC_UNAVAILABLE);
    expect_end(&c, PROTO_FETCH_JWT_BUNDLES, true, STR_NONE, GRPC_UNAVAILABLE);
    client_deinit(&c);
    world_deinit(&w);

    world_start_jwt(&w);
    client_init(&c, &w);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, STR_NONE, GRPC_INVALID_ARGUMENT);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("", "", out), GRPC_INVALID_ARGUMENT);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("a", "x", out), GRPC_INVALID_ARGUMENT);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, STR_LIT("\x0a\x7f"), GRPC_INVALID_ARGUMENT);
    expect_end(&c, PROTO_VALIDATE_JWT_SVID, false, STR_NONE, GRPC_INVALID_ARGUMENT);
    assert_int_equal(w.n_reattest, 0);
    expect_end(&c, PROTO_VALIDATE_JWT_SVID, false, validate_request("a", "b", out),
               GRPC_INVALID_ARGUMENT);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("a", "spiffe://example.org/x", out),
               GRPC_PERMISSION_DENIED);
    assert_int_equal(w.n_jwt_sign, 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        w.jwt_outcome = cases[i].outcome;
        w.n_jwt_outcomes = cases[i].times;
        expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("a", "", out), cases[i].status);
        assert_int_equal(c.n_messages, cases[i].status == GRPC_OK ? 1 : 0);
        w.n_jwt_outcomes = 0;
    }
    w.n_ids = 0;
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("a", "", out), GRPC_PERMISSION_DENIED);
    expect_end(&c, PROTO_FETCH_JWT_BUNDLES, true, STR_NONE, GRPC_PERMISSION_DENIED);
    expect_end(&c, PROTO_VALIDATE_JWT_SVID, false, validate_request("a", "b", out),
               GRPC_PERMISSION_DENIED);
    client_deinit(&c);
    world_deinit(&w);
}

static void test_jwt(void **state)
{
    struct world w;
    struct client c;
    uint8_t out[4096];
    (void)state;
    world_start_jwt(&w);
    client_init(&c, &w);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("orders", "", out), GRPC_OK);
    assert_int_equal(w.n_reattest, 1);
    Workload__JWTSVIDResponse *r = workload__jwtsvidresponse__unpack(NULL, c.n_last, c.last);
    assert_non_null(r);
    assert_int_equal(r->n_svids, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_string_equal(r->svids[i]->spiffe_id, w.ids[i]);
        assert_string_equal(r->svids[i]->hint, i == 0 ? "internal" : ""); /* a hint is unique */
    }
    expect_end(&c, PROTO_VALIDATE_JWT_SVID, false,
               validate_request("orders", r->svids[1]->svid, out), GRPC_OK);
    Workload__ValidateJWTSVIDResponse *v =
        workload__validate_jwtsvidresponse__unpack(NULL, c.n_last, c.last);
    assert_non_null(v);
    assert_string_equal(v->spiffe_id, w.ids[1]);
    assert_true(v->claims.len > 50);
    workload__validate_jwtsvidresponse__free_unpacked(v, NULL);
    expect_end(&c, PROTO_VALIDATE_JWT_SVID, false, validate_request("x", r->svids[1]->svid, out),
               GRPC_INVALID_ARGUMENT);
    workload__jwtsvidresponse__free_unpacked(r, NULL);
    expect_end(&c, PROTO_FETCH_JWT_SVID, false, jwt_request("orders", w.ids[1], out), GRPC_OK);
    assert_int_equal(w.n_jwt_sign, 3);
    /* a caller that leaves in the middle */
    w.keeper_silent = true;
    client_ask(&c, PROTO_FETCH_JWT_SVID, "true", false, jwt_request("orders", "", out));
    run_calm(&w);
    client_deinit(&c);
    run_calm(&w);
    assert_int_equal(w.s->n_calls, 0);
    world_deinit(&w);
}

/* Keys for tokens and roots are told apart: each stream only by its own. */
static void test_jwt_bundle_stream(void **state)
{
    struct world w;
    struct client c, x;
    (void)state;
    world_start_jwt(&w);
    client_init(&c, &w);
    client_init(&x, &w);
    client_ask(&c, PROTO_FETCH_JWT_BUNDLES, "true", true, STR_NONE);
    client_ask(&x, PROTO_FETCH_X509_BUNDLES, "true", true, STR_NONE);
    run_to_messages(&c, 1);
    run_to_messages(&x, 1);
    Workload__JWTBundlesResponse *r = workload__jwtbundles_response__unpack(NULL, c.n_last, c.last);
    assert_non_null(r);
    assert_int_equal(r->n_bundles, 1);
    assert_string_equal(r->bundles[0]->key, "spiffe://example.org");
    workload__jwtbundles_response__free_unpacked(r, NULL);
    w.bundle_generation++;
    tell_changed(&w);
    run_to_messages(&x, 2);
    run_calm(&w);
    assert_int_equal(c.n_messages, 1);
    EVP_PKEY_free(w.jwt_key);
    w.jwt_key = jwt_key_new(JWT_ES384, NULL);
    w.jwks_generation++;
    tell_changed(&w);
    run_to_messages(&c, 2);
    run_calm(&w);
    assert_int_equal(x.n_messages, 2);
    client_deinit(&c);
    client_deinit(&x);
    world_deinit(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_jwt_refusals),
        cmocka_unit_test(test_jwt),
        cmocka_unit_test(test_jwt_bundle_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
