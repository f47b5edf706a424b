/* conn: what rules ask of a request's headers, query and token, over real connections. */
#include <postern/claims.h>

#include <fcntl.h>
#include <postern/jwt.h>
#include <postern/os.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "conn_world.h"
#include "h2_end.h"
#include "tokens.h"
/* cmocka wants these first */
#include <cmocka.h>

#define POLICY                                                                                     \
    "kind: Policy\nlevel: 2\nrules:\n"                                                             \
    "- name: with-token\n  action: ALLOW\n"                                                        \
    "  from: [{claims: [{name: groups, values: [admin]}]}]\n"                                      \
    "  to: [{paths: ['/t/{}']}]\n"                                                                 \
    "- name: in-test\n  action: ALLOW\n"                                                           \
    "  to: [{paths: [/h], headers: [{name: x-env, values: [test]}]}]\n"                            \
    "- name: asked\n  action: ALLOW\n  to: [{paths: [/q]}]\n"                                      \
    "- name: no-debug\n  action: DENY\n"                                                           \
    "  to: [{query: [{name: debug, values: ['1']}]}]\n"                                            \
    "- name: one-method\n  action: ALLOW\n  to: [{grpc: [a.B/Get]}]\n"

static struct world *world;
static EVP_PKEY *key;
static char keys_path[] = "/tmp/conn-claims-XXXXXX";

static void write_keys(EVP_PKEY *const *keys)
{
    char *set = tokens_set(keys, 1, "sig");
    int fd = open(keys_path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, set, strlen(set)), strlen(set));
    close(fd);
    free(set);
}

static int setup(void **state)
{
    char protocol[300];
    (void)state;
    jwt_init();
    key = tokens_key(JWT_ES256);
    int fd = mkstemp(keys_path);
    assert_true(fd >= 0);
    close(fd);
    write_keys(&key);
    snprintf(protocol, sizeof(protocol),
             "http\njwt:\n  - {issuer: 'https://idp', audiences: [me], jwks_file: %s}\n"
             "  - {trust_domain: td.example, audiences: [me], bundle: true, forward: false}",
             keys_path);
    world = world_new_explicit(protocol, POLICY, true);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    world_free(world);
    unlink(keys_path);
    EVP_PKEY_free(key);
    return 0;
}

static char *token_until(int64_t end_s, const char *groups)
{
    char claims[300];
    snprintf(claims, sizeof(claims),
             "{\"iss\":\"https://idp\",\"aud\":\"me\",\"exp\":%lld,\"groups\":[%s]}",
             (long long)end_s, groups);
    return tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k0\"}", claims, JWT_ES256, key);
}

/* What comes for a request: refused, or let through to a workload that says 204. */
static void bring(const char *what, const char *token, const char *status)
{
    char text[4000];
    int c = dial(world->port);
    snprintf(text, sizeof(text), "%s\r\nHost: a\r\n%s%s%s\r\n", what,
             token != NULL ? "Authorization: Bearer " : "", token != NULL ? token : "",
             token != NULL ? "\r\n" : "");
    say(c, text);
    if (strcmp(status, "204") == 0) {
        int s = take(world);
        const char *got = hear_until(s, "\r\n\r\n");
        if (token != NULL) {
            expect_in(got, token); /* goes on as it came */
        }
        say(s, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
        close(s);
        expect_in(hear_until(c, "\r\n\r\n"), "HTTP/1.1 204");
    } else {
        const char *got = hear_until(c, "\n\0");
        expect_in(got, status);
        assert_true(nobody_came(world));
    }
    close(c);
}

static void test_tokens(void **state)
{
    int64_t now = os_wall_s();
    char *good = token_until(now + 600, "\"dev\",\"admin\"");
    char *other = token_until(now + 600, "\"dev\"");
    char *old = token_until(now - 60, "\"admin\"");
    (void)state;
    bring("GET /t/1 HTTP/1.1", NULL, "403");
    bring("GET /t/1 HTTP/1.1", other, "403");
    bring("GET /t/1 HTTP/1.1", old, "401");
    expect_in(log_line(&world->server, "\"request\"", "\"status\":401"), "has expired");
    bring("GET /q HTTP/1.1", old, "401"); /* a token that is brought has to hold */
    bring("GET /t/1 HTTP/1.1", "a.b.c", "www-authenticate: Bearer");
    bring("GET /t/1 HTTP/1.1", good, "204");
    bring("GET /t/1 HTTP/1.1", good, "204"); /* remembered */
    bring("GET /t/1/2 HTTP/1.1", good, "403");
    bring("GET /t/1 HTTP/1.1\r\nAuthorization: Basic x", good, "401");
    free(good);
    free(other);
    free(old);
}

static void test_facts(void **state)
{
    (void)state;
    bring("GET /h HTTP/1.1", NULL, "403");
    bring("GET /h HTTP/1.1\r\nx-env: prod", NULL, "403");
    bring("GET /h HTTP/1.1\r\nX-Env: test\r\nx-env: prod", NULL, "403");
    bring("GET /h HTTP/1.1\r\nX-ENV:   test  ", NULL, "204");
    /* What the workload does not get is not there. */
    bring("GET /h HTTP/1.1\r\nConnection: x-env\r\nx-env: test", NULL, "403");
    bring("GET /q?debug=0&a=b HTTP/1.1", NULL, "204");
    bring("GET /q?debug=0&debug=1 HTTP/1.1", NULL, "403");
    bring("GET /q?d%65bug=%31 HTTP/1.1", NULL, "403");
    bring("GET /q?a;debug=1 HTTP/1.1", NULL, "403");
    bring("POST /a.B/Get HTTP/1.1\r\nContent-Type: application/grpc+proto\r\nContent-Length: 0",
          NULL, "204");
    bring("POST /a.B/Get HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 0", NULL, "403");
    bring("GET /a.B/Get HTTP/1.1\r\nContent-Type: application/grpc", NULL, "403");
}

/* The response goes on while the token does, and no longer (10 s are its leeway). */
static void test_end_of_token(void **state)
{
    char *token = token_until(os_wall_s() - (JWT_LEEWAY_S - 2), "\"admin\"");
    char text[3000];
    (void)state;
    int c = dial(world->port);
    snprintf(text, sizeof(text), "GET /t/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n",
             token);
    say(c, text);
    int s = take(world);
    hear_until(s, "\r\n\r\n");
    say(s, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
    hear_until(c, "begin");
    hear_reset(c);
    close(s);
    expect_in(log_line(&world->server, "policy_changed", "inbound"), "no longer allowed");
    free(token);
}

static bool withheld; /* what the workload heard of the last one was without its token */

static int begin(const char *token, int *ret_workload)
{
    char text[3000];
    int c = dial(world->port);
    snprintf(text, sizeof(text), "GET /t/1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n\r\n",
             token);
    say(c, text);
    *ret_workload = take(world);
    withheld = strcasestr(hear_until(*ret_workload, "\r\n\r\n"), "authorization") == NULL;
    say(*ret_workload, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin");
    hear_until(c, "begin");
    return c;
}

static struct end *begin_h2(const char *token, struct end **ret_workload)
{
    char bearer[2000];
    struct end *c = client_new(world);
    snprintf(bearer, sizeof(bearer), "Bearer %s", token);
    ask(c, true, FIELDS(TO("/t/1"), "authorization", bearer));
    *ret_workload = workload_new(world);
    see(*ret_workload, c, "request 1");
    withheld = strcasestr((*ret_workload)->side.said, "authorization") == NULL;
    return c;
}

/* What is in flight by a token whose key was withdrawn since. */
static void test_key_withdrawn(void **state)
{
    char *token = token_until(os_wall_s() + 600, "\"admin\"");
    EVP_PKEY *other = tokens_key(JWT_ES256);
    int s = -1;
    struct end *s2 = NULL;
    (void)state;
    int c = begin(token, &s);
    assert_false(withheld);
    struct end *c2 = begin_h2(token, &s2);
    assert_false(withheld);
    side_policy(&world->server, POLICY); /* with the same keys it goes on */
    side_settled(&world->server);
    say(s, "more");
    hear_until(c, "more");
    write_keys(&other);
    side_policy(&world->server, POLICY);
    hear_reset(c);
    see(c2, s2, "response 1\nHTTP/1.1 403 ");
    expect(&c2->side, "x-postern-reason: policy_changed\r\n");
    see(s2, c2, "closed 8\n");
    bring("GET /t/1 HTTP/1.1", token, "401");
    end_free(c2);
    end_free(s2);
    close(s);
    EVP_PKEY_free(other);
    free(token);
}

/* What an agent tells of the trust domain: keys, or that there are none. */
static struct claims_keys *told(const char *set)
{
    struct jwt_key_set one = {STR_LIT("td.example"), set != NULL ? str_of(set) : STR_NONE};
    const struct jwt_key_sets sets = {&one, set != NULL ? 1 : 0};
    return claims_keys_told(world->server.files->claims, &sets);
}

/* Keys that come while it runs, and go with requests in flight. */
static void test_keys_of_agent(void **state)
{
    EVP_PKEY *svid = tokens_key(JWT_ES256);
    char *set = tokens_set(&svid, 1, NULL);
    char *token = tokens_sign("{\"alg\":\"ES256\",\"kid\":\"k0\"}",
                              "{\"sub\":\"spiffe://td.example/a\",\"aud\":\"me\","
                              "\"exp\":4000000000,\"groups\":\"admin\"}",
                              JWT_ES256, svid);
    int s = -1;
    struct end *s2 = NULL;
    struct claims_keys *with = told(set), *without = told(NULL);
    (void)state;
    bring("GET /t/1 HTTP/1.1", token, "401");
    expect_in(log_line(&world->server, "\"request\"", "there are no keys"), "td.example");
    world->server.claims = with;
    side_post(&world->server);
    side_settled(&world->server);
    int c = begin(token, &s);
    assert_true(withheld); /* as the file says of these */
    struct end *c2 = begin_h2(token, &s2);
    assert_true(withheld);
    side_post(&world->server); /* with the same keys it goes on */
    side_settled(&world->server);
    say(s, "more");
    hear_until(c, "more");
    world->server.claims = without;
    side_post(&world->server);
    hear_reset(c);
    see(c2, s2, "response 1\nHTTP/1.1 403 ");
    see(s2, c2, "closed 8\n");
    bring("GET /t/1 HTTP/1.1", token, "401");
    world->server.claims = NULL;
    side_post(&world->server);
    side_settled(&world->server);
    end_free(c2);
    end_free(s2);
    close(s);
    claims_keys_unref(with);
    claims_keys_unref(without);
    free(set);
    free(token);
    EVP_PKEY_free(svid);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),        cmocka_unit_test(test_facts),
        cmocka_unit_test(test_end_of_token),  cmocka_unit_test(test_keys_of_agent),
        cmocka_unit_test(test_key_withdrawn),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
