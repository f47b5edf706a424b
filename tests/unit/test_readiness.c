/* readiness: what an agent keeps of permissive ports. docs/permissive.md. */
#include <postern/readiness.h>

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define NOW INT64_C(1000000)
#define A STR_LIT("spiffe://example.org/ns/a/sa/a")
#define B STR_LIT("spiffe://example.org/ns/b/sa/b")
#define NAME STR_LIT("proxy")

enum { PORTS = READINESS_IDENTITY_PORTS + 1, CALLERS = 3 * READINESS_CALLERS };

/* One report of ports that are alike. */
struct said {
    Postern__V1__PlaintextReport report;
    Postern__V1__PlaintextPort ports[PORTS], *port_places[PORTS];
    Postern__V1__PlaintextCaller callers[CALLERS], *caller_places[CALLERS];
    uint8_t sources[CALLERS][4];
};

static struct said *say(size_t n_ports, size_t n_callers)
{
    struct said *s = mem_must_new(struct said);
    postern__v1__plaintext_report__init(&s->report);
    s->report.ports = s->port_places;
    s->report.n_ports = n_ports;
    for (size_t i = 0; i < n_callers; i++) {
        Postern__V1__PlaintextCaller *c = s->caller_places[i] = &s->callers[i];
        postern__v1__plaintext_caller__init(c);
        s->sources[i][0] = 10;
        s->sources[i][2] = (uint8_t)(i >> 8);
        s->sources[i][3] = (uint8_t)i;
        c->source = (ProtobufCBinaryData){4, s->sources[i]};
        c->kind = (char *)(uintptr_t)"http1";
        c->connections = c->denied = 1;
        c->first_ago = c->last_ago = i + 1;
    }
    for (size_t i = 0; i < n_ports; i++) {
        Postern__V1__PlaintextPort *p = s->port_places[i] = &s->ports[i];
        postern__v1__plaintext_port__init(p);
        p->listener = (char *)(uintptr_t)"in";
        p->port = (uint32_t)(8000 + i);
        p->watched_ago = 101;
        p->strict_after_s = 50;
        p->callers = s->caller_places;
        p->n_callers = n_callers;
    }
    return s;
}

static json_t *written(const struct readiness *r, int64_t now_s)
{
    struct buf out = BUF_INIT(16 << 20);
    assert_true(readiness_write(r, now_s, &out));
    json_t *o =
        json_loadb((const char *)buf_head(&out), buf_len(&out), JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    buf_reset(&out);
    return o;
}

static json_t *port_at(json_t *o, size_t workload, size_t port)
{
    json_t *w = json_array_get(json_object_get(o, "workloads"), workload);
    return json_array_get(json_object_get(w, "ports"), port);
}

static long long number(const json_t *o, const char *key)
{
    return (long long)json_integer_value(json_object_get(o, key));
}

/* --- bad cases first ---------------------------------------------------------------------------*/

static void test_texts(void **state)
{
    static const char *const bad[] = {
        "",       "a b",      "a\x1b[2J",
        "a\"b\n", "\xc2\x9b", "0123456789012345678901234567890123456789012345678901234567890123"};
    struct readiness *r = readiness_new();
    struct said *s = say(1, 1);
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s->ports[0].listener = (char *)(uintptr_t)bad[i];
        assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW), READINESS_NOTHING);
    }
    s->ports[0].listener = (char *)(uintptr_t)"in";
    s->ports[0].port = 65536;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW), READINESS_NOTHING);
    s->ports[0].port = 0;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW), READINESS_NOTHING);
    s->ports[0].port = 80;
    s->ports[0].watched_ago = 0;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW), READINESS_NOTHING);
    s->ports[0].watched_ago = 1;
    s->callers[0].kind = (char *)(uintptr_t)"\x1b]0;x";
    assert_int_equal(readiness_take(r, A, STR_LIT("a\"\x1b[2J\\"), &s->report, NOW),
                     READINESS_NEWS);
    json_t *o = written(r, NOW);
    json_t *w = json_array_get(json_object_get(o, "workloads"), 0);
    assert_string_equal(json_string_value(json_object_get(w, "name")), "a\"?[2J\\");
    json_t *c = json_array_get(json_object_get(port_at(o, 0, 0), "callers"), 0);
    assert_string_equal(json_string_value(json_object_get(c, "source")), "others");
    assert_string_equal(json_string_value(json_object_get(c, "class")), "mixed");
    assert_int_equal(number(o, "not_kept"), 9);
    json_decref(o);
    free(s);
    readiness_free(r);
}

static void test_bounds(void **state)
{
    struct readiness *r = readiness_new();
    struct readiness_counts n;
    struct said *s = say(PORTS, 0);
    char id[64];
    (void)state;
    (void)readiness_take(r, A, NAME, &s->report, NOW);
    readiness_count(r, &n);
    assert_int_equal(n.ports, READINESS_IDENTITY_PORTS);
    assert_int_equal(n.not_kept, 1);
    /* later it displaces its own, and nothing else */
    s->report.n_ports = 1;
    s->ports[0].port = 9999;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW + 1), READINESS_NEWS);
    readiness_count(r, &n);
    assert_int_equal(n.ports, READINESS_IDENTITY_PORTS);
    for (unsigned i = 0; i < READINESS_PORTS; i++) {
        snprintf(id, sizeof(id), "spiffe://example.org/%u", i);
        (void)readiness_take(r, str_of(id), NAME, &s->report, NOW + 2);
    }
    readiness_count(r, &n);
    assert_int_equal(n.ports, READINESS_PORTS);
    assert_int_equal(n.not_kept, 1 + READINESS_IDENTITY_PORTS);
    assert_int_equal(readiness_take(r, B, NAME, &s->report, NOW + 3), READINESS_NOTHING);
    assert_int_equal(readiness_take(r, B, NAME, &s->report, NOW + 3 + READINESS_STALE_S),
                     READINESS_NEWS);
    /* counts stop; the sums of them are numbers that JSON's readers take */
    struct said *many = say(1, CALLERS);
    for (size_t i = 0; i < CALLERS; i++) {
        many->callers[i].connections = UINT64_MAX;
    }
    many->ports[0].mtls = UINT64_MAX;
    many->ports[0].port = 9999;
    for (int i = 0; i < 3; i++) {
        (void)readiness_take(r, B, NAME, &many->report, NOW + 4 + READINESS_STALE_S + i);
    }
    json_decref(written(r, NOW));
    free(many);
    free(s);
    readiness_free(r);
}

/* Whom policy let in is displaced last; what is displaced stays in the sums. */
static void test_callers(void **state)
{
    struct readiness *r = readiness_new();
    struct said *s = say(1, CALLERS);
    long long connections = 0;
    bool seen = false;
    (void)state;
    s->callers[0].last_ago = s->callers[0].first_ago = 5000; /* the one away longest */
    s->callers[0].last_allowed_ago = 5000;
    s->callers[0].allowed = 1;
    (void)readiness_take(r, A, NAME, &s->report, NOW);
    json_t *o = written(r, NOW), *p = port_at(o, 0, 0), *list = json_object_get(p, "callers");
    assert_int_equal(json_array_size(list), READINESS_CALLERS);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *c = json_array_get(list, i);
        connections += number(c, "connections");
        seen |= strcmp(json_string_value(json_object_get(c, "source")), "10.0.0.0") == 0;
    }
    assert_true(seen);
    assert_int_equal(connections, CALLERS);
    assert_int_equal(number(p, "connections"), CALLERS);
    assert_int_equal(number(p, "last_allowed_s"), NOW - 4999);
    json_decref(o);
    free(s);
    readiness_free(r);
}

/* --- what is kept ------------------------------------------------------------------------------*/

static void test_watched(void **state)
{
    static const struct {
        int64_t at_s;
        uint64_t watched_ago;
        int64_t since_s;
    } steps[] = {
        {NOW, 101, NOW - 100},
        {NOW + 60, 161, NOW - 100},
        {NOW + 300, 200, NOW - 100},          /* another process, after a gap of a minute */
        {NOW + 4000, 5001, NOW - 100},        /* the agent was away: it was watched all the same */
        {NOW + 8000, 101, NOW + 7900},        /* nobody watched */
        {NOW + 8060, 20000, NOW + 7900},      /* a replica that is older does not make it longer */
        {NOW + 7000, 101, NOW + 6900},        /* a clock that was set back */
        {NOW + 90000000, 101, NOW + 89999900} /* and forward */
    };
    struct readiness *r = readiness_new();
    struct said *s = say(1, 0);
    (void)state;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        s->ports[0].watched_ago = steps[i].watched_ago;
        (void)readiness_take(r, A, NAME, &s->report, steps[i].at_s);
        json_t *o = written(r, steps[i].at_s);
        assert_int_equal(number(port_at(o, 0, 0), "watched_since_s"), steps[i].since_s);
        assert_int_equal(number(port_at(o, 0, 0), "told_s"), steps[i].at_s);
        json_decref(o);
    }
    free(s);
    readiness_free(r);
}

static bool is_strict(const struct readiness *r, struct str id)
{
    struct readiness_strict p;
    bool strict = readiness_strict(r, id, 0, &p);
    if (strict) {
        assert_string_equal(p.listener, "in");
        assert_int_equal(p.port, 8000);
        assert_false(readiness_strict(r, id, 1, &p));
    }
    return strict;
}

static void test_strict(void **state)
{
    struct readiness *r = readiness_new();
    struct said *s = say(1, 0);
    Postern__V1__PlaintextPort *p = &s->ports[0];
    (void)state;
    p->last_allowed_ago = 80;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW), READINESS_NEWS);
    assert_false(is_strict(r, A));
    p->strict_ago = 1;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW + 1), READINESS_TURNED);
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW + 2), READINESS_NEWS);
    assert_true(is_strict(r, A));
    assert_false(is_strict(r, B)); /* another one's is not meant */
    /* A replica that is watched anew says nothing against it; plaintext that it lets in does. */
    p->strict_ago = p->last_allowed_ago = 0;
    (void)readiness_take(r, A, NAME, &s->report, NOW + 3);
    assert_true(is_strict(r, A));
    p->open = true;
    (void)readiness_take(r, A, NAME, &s->report, NOW + 4);
    assert_false(is_strict(r, A));
    /* Until it is quiet there too. */
    p->open = false;
    p->strict_ago = 1;
    assert_int_equal(readiness_take(r, A, NAME, &s->report, NOW + 99), READINESS_TURNED);
    assert_true(is_strict(r, A));
    /* The file does not ask for it any more. */
    p->strict_ago = p->strict_after_s = 0;
    (void)readiness_take(r, A, NAME, &s->report, NOW + 100);
    assert_false(is_strict(r, A));
    /* Whoever says a time that is none, or one before all times. */
    p->strict_after_s = UINT64_MAX;
    p->strict_ago = p->last_allowed_ago = UINT64_MAX;
    (void)readiness_take(r, A, NAME, &s->report, NOW + 101);
    assert_false(is_strict(r, A));
    free(s);
    readiness_free(r);
}

static void test_file(void **state)
{
    struct readiness *r = readiness_new(), *again = readiness_new();
    struct said *s = say(3, 40);
    struct buf one = BUF_INIT(READINESS_FILE_MAX), two = BUF_INIT(READINESS_FILE_MAX);
    struct err err = ERR_INIT;
    (void)state;
    s->ports[0].strict_ago = 1;
    (void)readiness_take(r, A, NAME, &s->report, NOW);
    (void)readiness_take(r, B, NAME, &s->report, NOW + 5);
    assert_true(readiness_save(r, NOW + 5, &one));
    assert_int_equal(readiness_load(again, (struct str){NULL, 0}, &err), 0);
    assert_int_equal(readiness_load(again, buf_str(&one), &err), 0);
    assert_true(is_strict(again, A));
    assert_true(readiness_save(again, NOW + 5, &two));
    assert_true(str_eq(buf_str(&one), buf_str(&two)));
    /* Cut anywhere it is not taken for a shorter one, and nothing of it is taken. */
    for (size_t n = 1; n < buf_len(&one); n += 7) {
        struct err why = ERR_INIT;
        struct readiness *none = readiness_new();
        if (readiness_load(none, (struct str){buf_str(&one).p, n}, &why) == -1) {
            struct readiness_counts counts;
            readiness_count(none, &counts);
            assert_int_equal(counts.ports, 0);
        }
        readiness_free(none);
    }
    assert_int_equal(readiness_load(again, STR_LIT("\x08\x02"), &err), -1);
    assert_int_equal(readiness_load(again, STR_LIT("kind: Policy\n"), &err), -1);
    assert_true(is_strict(again, A)); /* it is as it was */
    /* What nobody told of for so long is forgotten. */
    buf_reset(&two);
    assert_true(readiness_save(again, NOW + 3 + READINESS_KEEP_S, &two));
    struct readiness_counts counts;
    readiness_count(again, &counts);
    assert_int_equal(counts.ports, 3);
    buf_reset(&one);
    buf_reset(&two);
    free(s);
    readiness_free(r);
    readiness_free(again);
}

/* The most that there can be fits into the file, and into an answer. */
static void test_largest(void **state)
{
    struct readiness *r = readiness_new();
    struct said *s = say(READINESS_IDENTITY_PORTS, READINESS_CALLERS - 1);
    struct buf file = BUF_INIT(READINESS_FILE_MAX);
    char id[2049];
    (void)state;
    for (size_t i = 0; i < READINESS_CALLERS - 1; i++) {
        s->callers[i].connections = s->callers[i].allowed = s->callers[i].denied = UINT64_MAX;
        s->callers[i].kind = (char *)(uintptr_t)"proxy_protocol";
        s->callers[i].last_allowed_ago = 1;
    }
    for (unsigned i = 0; i < READINESS_PORTS / READINESS_IDENTITY_PORTS; i++) {
        int n = snprintf(id, sizeof(id), "spiffe://example.org/%u/", i);
        memset(id + n, 'a', sizeof(id) - 1 - (size_t)n);
        id[sizeof(id) - 1] = '\0';
        (void)readiness_take(r, str_of(id), NAME, &s->report, NOW);
    }
    assert_true(readiness_save(r, NOW, &file));
    json_decref(written(r, NOW));
    buf_reset(&file);
    free(s);
    readiness_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts),   cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_callers), cmocka_unit_test(test_watched),
        cmocka_unit_test(test_strict),  cmocka_unit_test(test_file),
        cmocka_unit_test(test_largest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
