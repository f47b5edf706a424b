/* quarantine: subjects, files that are damaged, and the two clocks of an end. */
#include <postern/quarantine.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void test_subjects(void **state)
{
    static const char *const bad[] = {
        "",
        "x",
        "spiffe://",
        "spiffe://example.org",
        "spiffe://A/x",
        "spiffe://a/x/../y",
        "spiffe://a/x/",
        "serial:",
        "serial:xyz",
        "serial::01",
        "serial:0102:",
        "serial:00112233445566778899aabbccddeeff001122334455",
        "sha256:0123",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeg",
        "sha512:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "docker.io/library/nginx:1.22",
    };
    static const struct {
        const char *text;
        enum quarantine_kind kind;
        const char *want;
    } good[] = {
        {"spiffe://example.org/a/b", QUARANTINE_SPIFFE_ID, "spiffe://example.org/a/b"},
        {"serial:0A:bc", QUARANTINE_SERIAL, "0abc"},
        {"serial:00000abc", QUARANTINE_SERIAL, "0abc"},
        {"serial:0", QUARANTINE_SERIAL, "00"},
        {"serial:7f", QUARANTINE_SERIAL, "7f"},
        {DIGEST, QUARANTINE_IMAGE_DIGEST, DIGEST},
        {"registry.example/app@" DIGEST, QUARANTINE_IMAGE_DIGEST, DIGEST},
    };
    char text[QUARANTINE_TEXT_MAX + 1];
    enum quarantine_kind kind;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (quarantine_subject(str_of(bad[i]), &kind, text, NULL) == 0) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct err err = ERR_INIT;

        assert_int_equal(quarantine_subject(str_of(good[i].text), &kind, text, &err), 0);
        assert_int_equal(kind, good[i].kind);
        assert_string_equal(text, good[i].want);
    }
}

static void add(struct quarantine *q, enum quarantine_kind kind, const char *text, uint64_t for_s,
                uint64_t parent)
{
    assert_int_equal(
        quarantine_add(q, kind, text, "because", for_s, parent, 1000000, 5000, NULL, NULL), 0);
}

static void test_versions_only_grow(void **state)
{
    struct quarantine q = {.items = NULL};
    uint64_t before;

    (void)state;
    add(&q, QUARANTINE_SPIFFE_ID, "spiffe://a/x", 0, 0);
    assert_true(q.version == 1000000); /* above anything that a lost file may have had */
    before = q.version;
    add(&q, QUARANTINE_SPIFFE_ID, "spiffe://a/x", 60, 0);
    assert_int_equal(q.n, 1); /* changed, not doubled */
    assert_true(q.version > before);
    before = q.version;
    quarantine_remove(&q, q.items[0].id, 5); /* a clock that went back */
    assert_int_equal(q.n, 0);
    assert_true(q.version > before);
    before = q.version;
    quarantine_remove(&q, 4711, 5);
    assert_true(q.version == before);
    quarantine_deinit(&q);
}

static void test_ends(void **state)
{
    struct quarantine q = {.items = NULL};

    (void)state;
    add(&q, QUARANTINE_SPIFFE_ID, "spiffe://a/for-ever", 0, 0);
    add(&q, QUARANTINE_SPIFFE_ID, "spiffe://a/minute", 60, 0);
    assert_null(quarantine_due(&q, 1000059, 5000 + 59000));
    assert_null(quarantine_due(&q, 1000000 + 86400, 5000 + 59000)); /* the wall clock jumped */
    assert_null(quarantine_due(&q, 1000000 - 86400, 5000 + 61000)); /* or went back */
    assert_string_equal(quarantine_due(&q, 1000060, 5000 + 60000)->text, "spiffe://a/minute");
    assert_true(quarantine_next_ms(&q, 1000010, 15000, 60000) == 50000);
    assert_true(quarantine_next_ms(&q, 1000010, 15000, 10000) == 10000);
    assert_true(quarantine_next_ms(&q, 1000070, 75000, 10000) == 0);
    quarantine_deinit(&q);
}

static void test_image_brings_serials(void **state)
{
    struct quarantine q = {.items = NULL};

    (void)state;
    add(&q, QUARANTINE_IMAGE_DIGEST, DIGEST, 0, 0);
    add(&q, QUARANTINE_SERIAL, "01", 0, 0); /* ordered by itself */
    add(&q, QUARANTINE_SERIAL, "01", 0, 1);
    add(&q, QUARANTINE_SERIAL, "02", 60, 1);
    add(&q, QUARANTINE_SERIAL, "02", 600, 1); /* the image was ordered anew: for longer */
    assert_int_equal(q.n, 3);
    assert_true(q.items[2].until_s == 1000600 && q.items[2].parent == 1);
    add(&q, QUARANTINE_SERIAL, "02", 60, 7); /* of another image too */
    assert_true(q.items[2].until_s == 1000600 && q.items[2].parent == 1);
    quarantine_remove(&q, 1, 1000001);
    assert_int_equal(q.n, 1);
    assert_string_equal(q.items[0].text, "01");
    quarantine_deinit(&q);
}

static void test_limit(void **state)
{
    struct quarantine q = {.items = NULL};
    struct err err = ERR_INIT;
    char text[32];

    (void)state;
    for (unsigned i = 0; i < QUARANTINE_ITEMS_MAX; i++) {
        snprintf(text, sizeof(text), "%08x", i + 1);
        add(&q, QUARANTINE_SERIAL, text, 0, 0);
    }
    assert_int_equal(
        quarantine_add(&q, QUARANTINE_SERIAL, "ffffffffff", "", 0, 0, 1, 1, NULL, &err), -1);
    assert_int_equal(err.code, ERR_LIMIT);
    quarantine_deinit(&q);
}

static void test_file(void **state)
{
    struct quarantine q = {.items = NULL}, again = {.items = NULL};
    struct buf one = BUF_INIT(1 << 20), two = BUF_INIT(1 << 20);
    struct err err = ERR_INIT;

    (void)state;
    assert_true(quarantine_print(&q, &one));
    assert_int_equal(quarantine_parse(buf_str(&one), 1, &again, &err), 0);
    assert_int_equal(again.n, 0);
    buf_reset(&one);
    add(&q, QUARANTINE_SPIFFE_ID, "spiffe://a/x", 60, 0);
    add(&q, QUARANTINE_IMAGE_DIGEST, DIGEST, 0, 0);
    add(&q, QUARANTINE_SERIAL, "0abc", 0, 2);
    assert_true(quarantine_print(&q, &one));
    assert_int_equal(quarantine_parse(buf_str(&one), 77, &again, &err), 0);
    assert_true(quarantine_print(&again, &two));
    assert_true(str_eq(buf_str(&one), buf_str(&two)));
    assert_true(again.items[0].due_ms == 77 && again.version == q.version);
    quarantine_deinit(&again);
    /* cut anywhere, or with a byte too many, it is damaged and never a smaller set */
    for (size_t n = 0; n < buf_len(&one); n++) {
        struct str cut = {buf_str(&one).p, n};

        assert_int_equal(quarantine_parse(cut, 1, &again, &err), -1);
    }
    assert_true(buf_append(&one, "x", 1));
    assert_int_equal(quarantine_parse(buf_str(&one), 1, &again, &err), -1);
    buf_reset(&one);
    buf_reset(&two);
    quarantine_deinit(&q);
}

static void test_damaged_files(void **state)
{
#define HEAD "{\"quarantine\":1,\"version\":5,\"last_id\":9}\n"
#define ITEM(id, kind, subject)                                                                    \
    "{\"id\":" id ",\"kind\":\"" kind "\",\"subject\":\"" subject                                  \
    "\",\"parent\":0,\"added\":1,\"until\":0,\"reason\":\"\"}\n"
    static const char *const bad[] = {
        "{\"quarantine\":2,\"version\":5,\"last_id\":9}\n{\"end\":0}\n",
        HEAD "{\"end\":1}\n",
        HEAD ITEM("1", "serial", "0abc") "{\"end\":2}\n",
        HEAD ITEM("0", "serial", "0abc") "{\"end\":1}\n",
        HEAD ITEM("10", "serial", "0abc") "{\"end\":1}\n",
        HEAD ITEM("1", "serial", "0ABC") "{\"end\":1}\n",
        HEAD ITEM("1", "serial", "abc") "{\"end\":1}\n",
        HEAD ITEM("1", "spiffe_id", "0abc") "{\"end\":1}\n",
        HEAD ITEM("1", "other", "0abc") "{\"end\":1}\n",
        HEAD ITEM("2", "serial", "0a") ITEM("1", "serial", "0b") "{\"end\":2}\n",
        HEAD ITEM("1", "serial", "0a") ITEM("2", "serial", "0a") "{\"end\":2}\n",
    };
    struct quarantine q = {.items = NULL};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (quarantine_parse(str_of(bad[i]), 1, &q, NULL) == 0) {
            fail_msg("taken: %s", bad[i]);
        }
    }
    assert_int_equal(
        quarantine_parse(STR_LIT(HEAD ITEM("1", "serial", "0a") "{\"end\":1}\n"), 1, &q, NULL), 0);
    quarantine_deinit(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_subjects),      cmocka_unit_test(test_versions_only_grow),
        cmocka_unit_test(test_ends),          cmocka_unit_test(test_image_brings_serials),
        cmocka_unit_test(test_limit),         cmocka_unit_test(test_file),
        cmocka_unit_test(test_damaged_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
