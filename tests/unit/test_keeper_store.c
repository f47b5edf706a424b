/* Records of authorities as bytes (identity/keeper/store.c): what no agent writes is refused. */
#include "store.h"

#include <postern/mem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static struct keeper_record *add(struct keeper_store *s, enum keeper_kind kind,
                                 enum keeper_state state, const char *id)
{
    struct keeper_record *r = keeper_store_add(s, kind, state);

    assert_non_null(r);
    (void)snprintf(r->id, sizeof(r->id), "%s", id);
    r->created_s = 1700000000;
    r->changed_s = 1700000001;
    r->not_after_s = 1800000000;
    r->signed_until_s = 1750000000;
    assert_true(keeper_record_set_key(r, "key of ", 7));
    if (kind == KEEPER_X509) {
        assert_true(keeper_record_set_cert(r, "a certificate", 13));
    }
    return r;
}

static void fill(struct keeper_store *s)
{
    keeper_store_init(s, STR_LIT("example.org"));
    s->sequence = 41;
    add(s, KEEPER_X509, KEEPER_TAINTED, "aa01");
    add(s, KEEPER_X509, KEEPER_ACTIVE, "aa02");
    add(s, KEEPER_JWT, KEEPER_ACTIVE, "aa02");
    add(s, KEEPER_JWT, KEEPER_PREPARED, "A-_9");
}

static struct str encode(const struct keeper_store *s)
{
    uint8_t *bytes = NULL;
    size_t n = 0;

    assert_int_equal(keeper_store_encode(s, &bytes, &n, NULL), 0);
    return (struct str){(const char *)bytes, n};
}

static void free_bytes(struct str bytes)
{
    mem_secret_free((void *)(uintptr_t)bytes.p);
}

/* --- refused ---------------------------------------------------------------------------------- */
static void twice_active(struct keeper_store *s)
{
    add(s, KEEPER_X509, KEEPER_ACTIVE, "other");
}
static void twice_prepared(struct keeper_store *s)
{
    add(s, KEEPER_JWT, KEEPER_PREPARED, "other");
}
static void same_id(struct keeper_store *s)
{
    add(s, KEEPER_X509, KEEPER_OLD, "aa01");
}
static void no_id(struct keeper_store *s)
{
    s->records[0].id[0] = 0;
}
static void odd_id(struct keeper_store *s)
{
    s->records[0].id[0] = '/';
}
static void unknown_kind(struct keeper_store *s)
{
    s->records[0].kind = (enum keeper_kind)3;
}
static void unknown_state(struct keeper_store *s)
{
    s->records[0].state = (enum keeper_state)5;
}
static void no_state(struct keeper_store *s)
{
    s->records[0].state = (enum keeper_state)0;
}
static void before_time(struct keeper_store *s)
{
    s->records[1].not_after_s = -1;
}
static void no_domain(struct keeper_store *s)
{
    s->trust_domain[0] = 0;
}

static void test_refused(void **state)
{
    static const struct {
        const char *what;
        void (*spoil)(struct keeper_store *s);
    } cases[] = {
        {"two active of a kind", twice_active},
        {"two prepared of a kind", twice_prepared},
        {"an id twice", same_id},
        {"no id", no_id},
        {"an id of other letters", odd_id},
        {"an unknown kind", unknown_kind},
        {"an unknown state", unknown_state},
        {"no state", no_state},
        {"a time before 1970", before_time},
        {"no trust domain", no_domain},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct keeper_store s, back = {.n = 77};
        struct err err = ERR_INIT;
        struct str bytes;

        fill(&s);
        cases[i].spoil(&s);
        bytes = encode(&s);
        if (keeper_store_decode(bytes, &back, &err) != -1 || err.code != ERR_CONFIG ||
            back.n != 77) {
            fail_msg("%s: taken, or told as code %d", cases[i].what, (int)err.code);
        }
        free_bytes(bytes);
        keeper_store_deinit(&s);
    }
}

static void test_cut_and_longer(void **state)
{
    struct keeper_store s, back;
    struct str bytes;
    char *longer;

    (void)state;
    fill(&s);
    bytes = encode(&s);
    for (size_t n = 0; n < bytes.n; n++) {
        assert_int_equal(keeper_store_decode((struct str){bytes.p, n}, &back, NULL), -1);
    }
    longer = mem_must_calloc(1, bytes.n + 1);
    memcpy(longer, bytes.p, bytes.n);
    assert_int_equal(keeper_store_decode((struct str){longer, bytes.n + 1}, &back, NULL), -1);
    longer[3] = 2; /* a version of tomorrow */
    struct err err = ERR_INIT;
    assert_int_equal(keeper_store_decode((struct str){longer, bytes.n}, &back, &err), -1);
    assert_non_null(strstr(err.advice, "newer"));
    free(longer);
    free_bytes(bytes);
    keeper_store_deinit(&s);
}

/* --- taken ------------------------------------------------------------------------------------ */
static void same(const struct keeper_store *a, const struct keeper_store *b)
{
    assert_string_equal(a->trust_domain, b->trust_domain);
    assert_int_equal(a->sequence, b->sequence);
    assert_int_equal(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const struct keeper_record *x = &a->records[i], *y = &b->records[i];

        assert_int_equal(x->kind, y->kind);
        assert_int_equal(x->state, y->state);
        assert_string_equal(x->id, y->id);
        assert_int_equal(x->created_s, y->created_s);
        assert_int_equal(x->changed_s, y->changed_s);
        assert_int_equal(x->not_after_s, y->not_after_s);
        assert_int_equal(x->signed_until_s, y->signed_until_s);
        assert_int_equal(x->key_len, y->key_len);
        assert_int_equal(x->cert_len, y->cert_len);
        assert_memory_equal(x->key, y->key, x->key_len);
        if (x->cert_len > 0) {
            assert_memory_equal(x->cert, y->cert, x->cert_len);
        }
    }
}

static void test_round_trip(void **state)
{
    struct keeper_store s, back, copy;
    struct str bytes;

    (void)state;
    fill(&s);
    bytes = encode(&s);
    assert_int_equal(keeper_store_decode(bytes, &back, NULL), 0);
    same(&s, &back);
    assert_int_equal(keeper_store_copy(&back, &copy, NULL), 0);
    same(&s, &copy);
    assert_ptr_not_equal(copy.records[0].key, back.records[0].key);
    free_bytes(bytes);
    keeper_store_deinit(&s);
    keeper_store_deinit(&back);
    keeper_store_deinit(&copy);
    /* an agent before its first authority */
    keeper_store_init(&s, STR_LIT("example.org"));
    bytes = encode(&s);
    assert_int_equal(keeper_store_decode(bytes, &back, NULL), 0);
    same(&s, &back);
    free_bytes(bytes);
    keeper_store_deinit(&s);
    keeper_store_deinit(&back);
}

static void test_records(void **state)
{
    struct keeper_store s;
    struct keeper_record *r;
    char id[8];

    (void)state;
    fill(&s);
    r = keeper_store_find_id(&s, KEEPER_JWT, STR_LIT("aa02"));
    assert_non_null(r);
    assert_ptr_equal(r, keeper_store_find(&s, KEEPER_JWT, KEEPER_ACTIVE));
    assert_null(keeper_store_find(&s, KEEPER_X509, KEEPER_PREPARED));
    keeper_store_remove(&s, keeper_store_find_id(&s, KEEPER_X509, STR_LIT("aa01")));
    assert_int_equal(s.n, 3);
    assert_string_equal(s.records[0].id, "aa02");
    for (int i = 1; i < KEEPER_RECORDS_MAX; i++) {
        (void)snprintf(id, sizeof(id), "o%d", i);
        add(&s, KEEPER_X509, KEEPER_OLD, id);
    }
    assert_null(keeper_store_add(&s, KEEPER_X509, KEEPER_OLD));
    assert_non_null(keeper_store_add(&s, KEEPER_JWT, KEEPER_OLD));
    assert_false(keeper_record_set_key(&s.records[0], "", 0));
    assert_false(keeper_record_set_key(&s.records[0], "", KEEPER_KEY_MAX + 1));
    assert_false(keeper_record_set_cert(&s.records[0], "", KEEPER_CERT_MAX + 1));
    keeper_store_deinit(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_cut_and_longer),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_records),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
