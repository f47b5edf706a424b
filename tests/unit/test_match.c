/* match: which entries fit which facts, and as which identity. Bad cases first; the index is held
 * against asking every entry. */
#include <postern/keeper.h>
#include <postern/mem.h>
#include <postern/spiffe.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEX64 "6ddd2fcc3d793482ec1ae4841c30b1a9b7ab838da030054addcaa14c608c3d26"

/* --- making entries and facts ----------------------------------------------------------------- */
struct want {
    enum agent_selector_type type;
    uint32_t number;
    const char *text;
};

static void fill(struct agent_msg_entry *m, uint32_t index, const char *id, const char *spiffe_id,
                 const struct want *wants, size_t n)
{
    agent_ipc_init(m, AGENT_MSG_ENTRY, 0);
    m->index = index;
    assert_true(agent_ipc_put(m->id, AGENT_NAME_MAX, &m->id_len, str_of(id)));
    assert_true(agent_ipc_put(m->spiffe_id, AGENT_ID_MAX, &m->spiffe_id_len, str_of(spiffe_id)));
    for (size_t i = 0; i < n; i++) {
        size_t len = wants[i].text != NULL ? strlen(wants[i].text) : 0;

        m->selectors[m->n_selectors++] = (struct agent_selector){
            .type = wants[i].type, .number = wants[i].number, .text_len = (uint16_t)len};
        if (len > 0) {
            memcpy(m->selector_text + m->selector_text_len, wants[i].text, len);
        }
        m->selector_text_len = (uint16_t)(m->selector_text_len + len);
    }
}

struct plan {
    const char *id, *spiffe_id;
    struct want wants[3];
    size_t n;
};

static struct keeper_entries *make_set(const struct plan *plans, size_t n)
{
    static struct agent_msg_entry m;
    struct keeper_entries *set = keeper_entries_new(1, n);
    uint32_t added, removed, changed;
    struct err err = ERR_INIT;

    for (size_t i = 0; i < n; i++) {
        fill(&m, (uint32_t)i, plans[i].id, plans[i].spiffe_id, plans[i].wants, plans[i].n);
        keeper_entries_add(set, &m, STR_LIT("td"));
    }
    if (keeper_entries_check(set, NULL, &added, &removed, &changed, &err) != 0) {
        fail_msg("%s", err.what);
    }
    return set;
}

static const uint32_t groups[] = {4, 27, 27};
static struct keeper_label labels[] = {{(char *)(uintptr_t)"app", (char *)(uintptr_t)"orders"},
                                       {(char *)(uintptr_t)"a", (char *)(uintptr_t)"b:c"}};
#define TEXT(s) ((char *)(uintptr_t)(s))
static struct keeper_container container = {
    .id = TEXT(HEX64),
    .name = TEXT("proxy"),
    .image = TEXT("example.org/proxy:1"),
    .image_id = TEXT("example.org/proxy@sha256:" HEX64),
    .digest = TEXT("sha256:" HEX64),
};
static struct keeper_pod pod = {
    .uid = TEXT("8a29688e-514a-4962-b00b-693a9768948f"),
    .ns = TEXT("shop"),
    .sa = TEXT("orders"),
    .name = TEXT("orders-1"),
    .node = TEXT("n1"),
    .labels = labels,
    .n_labels = 2,
};
static const uint8_t digest[32] = {0x6d, 0xdd, 0x2f, 0xcc, 0x3d, 0x79, 0x34, 0x82, 0xec, 0x1a, 0xe4,
                                   0x84, 0x1c, 0x30, 0xb1, 0xa9, 0xb7, 0xab, 0x83, 0x8d, 0xa0, 0x30,
                                   0x05, 0x4a, 0xdd, 0xca, 0xa1, 0x4c, 0x60, 0x8c, 0x3d, 0x26};

static struct keeper_facts on_host(void)
{
    return (struct keeper_facts){.uid = 1000,
                                 .gid = 100,
                                 .groups = groups,
                                 .n_groups = 3,
                                 .own_view = true,
                                 .path = "/usr/bin/x",
                                 .sha256 = digest,
                                 .unit = "x.service"};
}

static struct keeper_facts in_pod(void)
{
    return (struct keeper_facts){.uid = 1000,
                                 .gid = 100,
                                 .groups = groups,
                                 .n_groups = 3,
                                 .contained = true,
                                 .sha256 = digest,
                                 .runtime = AGENT_RUNTIME_CONTAINERD,
                                 .container_id = HEX64,
                                 .pod_uid = pod.uid,
                                 .pod = &pod,
                                 .container = &container};
}

/* --- single selectors ------------------------------------------------------------------------- */
static const struct {
    struct want want;
    bool host, pod;
} singles[] = {
    {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, true, true},
    {{AGENT_SELECTOR_UNIX_UID, 1001, NULL}, false, false},
    {{AGENT_SELECTOR_UNIX_USER, 1000, NULL}, true, false}, /* another passwd file over there */
    {{AGENT_SELECTOR_UNIX_GID, 100, NULL}, true, true},
    {{AGENT_SELECTOR_UNIX_GID, 27, NULL}, false, false}, /* supplementary is not effective */
    {{AGENT_SELECTOR_UNIX_GROUP, 100, NULL}, true, false},
    {{AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID, 27, NULL}, true, true},
    {{AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GID, 100, NULL}, false, false},
    {{AGENT_SELECTOR_UNIX_SUPPLEMENTARY_GROUP, 4, NULL}, true, false},
    {{AGENT_SELECTOR_UNIX_PATH, 0, "/usr/bin/x"}, true, false},
    {{AGENT_SELECTOR_UNIX_PATH, 0, "/usr/bin"}, false, false},
    {{AGENT_SELECTOR_UNIX_SHA256, 0, HEX64}, true, true},
    {{AGENT_SELECTOR_SYSTEMD_ID, 0, "x.service"}, true, false},
    {{AGENT_SELECTOR_SYSTEMD_ID, 0, "x"}, false, false},
    {{AGENT_SELECTOR_CONTAINER_ID, 0, HEX64}, false, true},
    {{AGENT_SELECTOR_CONTAINER_RUNTIME, AGENT_RUNTIME_CONTAINERD, NULL}, false, true},
    {{AGENT_SELECTOR_CONTAINER_RUNTIME, AGENT_RUNTIME_DOCKER, NULL}, false, false},
    {{AGENT_SELECTOR_K8S_NS, 0, "shop"}, false, true},
    {{AGENT_SELECTOR_K8S_NS, 0, "sho"}, false, false},
    {{AGENT_SELECTOR_K8S_SA, 0, "orders"}, false, true},
    {{AGENT_SELECTOR_K8S_POD_NAME, 0, "orders-1"}, false, true},
    {{AGENT_SELECTOR_K8S_POD_UID, 0, "8a29688e-514a-4962-b00b-693a9768948f"}, false, true},
    {{AGENT_SELECTOR_K8S_POD_LABEL, 0, "app:orders"}, false, true},
    {{AGENT_SELECTOR_K8S_POD_LABEL, 0, "a:b:c"}, false, true},
    {{AGENT_SELECTOR_K8S_POD_LABEL, 0, "app:order"}, false, false},
    {{AGENT_SELECTOR_K8S_POD_LABEL, 0, "ap:orders"}, false, false},
    {{AGENT_SELECTOR_K8S_NODE_NAME, 0, "n1"}, false, true},
    {{AGENT_SELECTOR_K8S_CONTAINER_NAME, 0, "proxy"}, false, true},
    {{AGENT_SELECTOR_K8S_CONTAINER_IMAGE, 0, "example.org/proxy:1"}, false, true},
    {{AGENT_SELECTOR_K8S_CONTAINER_IMAGE, 0, "example.org/proxy@sha256:" HEX64}, false, true},
    {{AGENT_SELECTOR_K8S_CONTAINER_IMAGE, 0, "example.org/proxy"}, false, false},
    {{AGENT_SELECTOR_K8S_IMAGE_DIGEST, 0, "sha256:" HEX64}, false, true},
};
enum { N_SINGLES = sizeof(singles) / sizeof(singles[0]) };

static void test_selectors(void **state)
{
    struct keeper_facts host = on_host(), contained = in_pod();

    (void)state;
    for (size_t i = 0; i < N_SINGLES; i++) {
        struct keeper_selector s = {.type = singles[i].want.type,
                                    .number = singles[i].want.number,
                                    .text =
                                        singles[i].want.text != NULL ? singles[i].want.text : ""};

        if (keeper_selector_holds(&s, &host) != singles[i].host ||
            keeper_selector_holds(&s, &contained) != singles[i].pod) {
            fail_msg("case %zu: %s %u %s", i, agent_selector_name(s.type), s.number, s.text);
        }
    }
}

/* Facts that are not known hold for nothing, the empty text included. */
static void test_nothing_known(void **state)
{
    const struct keeper_facts nobody = {.uid = 1, .gid = 1};
    static struct keeper_pod empty = {TEXT(""), TEXT(""), TEXT(""), TEXT(""), TEXT(""),
                                      NULL,     0,        NULL,     0};
    static struct keeper_container none = {TEXT(""), TEXT(""), TEXT(""), TEXT(""), TEXT("")};
    const struct keeper_facts blank = {.uid = 1, .gid = 1, .pod = &empty, .container = &none};

    (void)state;
    for (uint32_t type = 0; type < AGENT_N_SELECTORS; type++) {
        struct keeper_selector s = {.type = type, .number = 0, .text = ""};

        assert_false(keeper_selector_holds(&s, &nobody));
        assert_false(keeper_selector_holds(&s, &blank));
    }
}

/* --- whole entries ---------------------------------------------------------------------------- */
static void test_all_must_hold(void **state)
{
    static const struct plan plans[] = {
        {"both",
         "spiffe://td/a",
         {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, {AGENT_SELECTOR_UNIX_PATH, 0, "/usr/bin/x"}},
         2},
        {"second-fails",
         "spiffe://td/b",
         {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, {AGENT_SELECTOR_UNIX_PATH, 0, "/usr/bin/y"}},
         2},
        {"first-fails",
         "spiffe://td/c",
         {{AGENT_SELECTOR_UNIX_UID, 1, NULL}, {AGENT_SELECTOR_UNIX_PATH, 0, "/usr/bin/x"}},
         2},
    };
    struct keeper_entries *set = make_set(plans, 3);
    struct keeper_facts f = on_host();
    uint32_t places[AGENT_IDENTITIES_MAX];
    size_t which;

    (void)state;
    assert_int_equal(keeper_entries_match(set, &f, places), 1);
    assert_int_equal(places[0], 0);
    assert_int_equal(keeper_entry_judge(&set->items[1], &f, &which), KEEPER_SELECTOR);
    assert_int_equal(which, 1);
    assert_int_equal(keeper_entry_judge(&set->items[2], &f, &which), KEEPER_SELECTOR);
    assert_int_equal(which, 0);
    keeper_entries_free(set);
}

/* uid 1000 of a container is nobody of the host. */
static void test_contained(void **state)
{
    static const struct plan plans[] = {
        {"unix",
         "spiffe://td/a",
         {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, {AGENT_SELECTOR_UNIX_SHA256, 0, HEX64}},
         2},
        {"more",
         "spiffe://td/b",
         {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, {AGENT_SELECTOR_K8S_NS, 0, "shop"}},
         2},
    };
    struct keeper_entries *set = make_set(plans, 2);
    struct keeper_facts f = in_pod();
    struct keeper_grant g;
    uint32_t places[AGENT_IDENTITIES_MAX];
    size_t which;

    (void)state;
    assert_int_equal(keeper_entries_match(set, &f, places), 1);
    assert_int_equal(places[0], 1);
    assert_int_equal(keeper_entry_judge(&set->items[0], &f, &which), KEEPER_CONTAINED);
    assert_false(keeper_entries_grant(set, &f, 0, &g));
    assert_true(keeper_entries_grant(set, &f, 1, &g));
    assert_string_equal(g.spiffe_id, "spiffe://td/b");
    f.contained = false;
    assert_int_equal(keeper_entries_match(set, &f, places), 2);
    keeper_entries_free(set);
}

/* --- templates -------------------------------------------------------------------------------- */
#define SHOP {{AGENT_SELECTOR_K8S_CONTAINER_NAME, 0, "proxy"}}, 1

static void test_template(void **state)
{
    static const struct plan plans[] = {
        {"ns-sa", "spiffe://td/ns/{k8s.ns}/sa/{k8s.sa}", SHOP},
        {"pod", "spiffe://td/{k8s.node-name}/{k8s.pod-name}/x-{k8s.container-name}", SHOP},
        {"uid",
         "spiffe://td/u/{unix.uid}/{unix.gid}",
         {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}, {AGENT_SELECTOR_K8S_NS, 0, "shop"}},
         2},
        {"container", "spiffe://td/{container.id}", {{AGENT_SELECTOR_CONTAINER_ID, 0, HEX64}}, 1},
    };
    static const char *const ids[] = {"spiffe://td/ns/shop/sa/orders",
                                      "spiffe://td/n1/orders-1/x-proxy", "spiffe://td/u/1000/100",
                                      "spiffe://td/" HEX64};
    struct keeper_entries *set = make_set(plans, 4);
    struct keeper_facts f = in_pod();
    struct keeper_grant g;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        assert_true(keeper_entries_grant(set, &f, i, &g));
        assert_string_equal(g.spiffe_id, ids[i]);
    }
    keeper_entries_free(set);
}

/* What would change the shape of the ID refuses the entry for that caller; nothing is repaired. */
static void test_template_values(void **state)
{
    static const char *const values[] = {"",         ".", "..", "a/b", "a b", "a@b",     "a%2fb",
                                         "\xc3\xa9", "/", "a:", "{x}", "a\n", "k8s.ns}", NULL};
    static const struct plan plans[] = {{"ns", "spiffe://td/ns/{k8s.ns}", SHOP}};
    struct keeper_entries *set = make_set(plans, 1);
    struct keeper_facts f = in_pod();
    struct keeper_pod other = pod;
    uint32_t places[AGENT_IDENTITIES_MAX];
    mem_autofree char *longest = mem_must_calloc(AGENT_ID_MAX + 1, 1);
    size_t which;

    (void)state;
    f.pod = &other;
    for (size_t i = 0; values[i] != NULL; i++) {
        other.ns = TEXT(values[i]);
        if (keeper_entries_match(set, &f, places) != 0 ||
            keeper_entry_judge(&set->items[0], &f, &which) != KEEPER_TEMPLATE) {
            fail_msg("\"%s\" was taken", values[i]);
        }
    }
    memset(longest, 'a', AGENT_ID_MAX - strlen("spiffe://td/ns/"));
    other.ns = longest;
    assert_int_equal(keeper_entries_match(set, &f, places), 1);
    longest[strlen(longest)] = 'a'; /* one byte too long */
    assert_int_equal(keeper_entries_match(set, &f, places), 0);
    keeper_entries_free(set);
}

static void test_template_refused(void **state)
{
    static const struct {
        const char *spiffe_id;
        enum agent_selector_type type;
        const char *text;
    } cases[] = {
        {"spiffe://td/{k8s.ns}", AGENT_SELECTOR_UNIX_PATH,
         "/x"}, /* not of a kind that is asked for */
        {"spiffe://td/{unix.uid}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{systemd.id}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{k8s.nS}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{k8s.ns", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/k8s.ns}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{{k8s.ns}}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://{k8s.ns}/x", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td{k8s.ns}/x", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td.evil/{k8s.ns}", AGENT_SELECTOR_K8S_NS, "x"},
        {"{k8s.ns}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{k8s.ns}-{k8s.sa}", AGENT_SELECTOR_K8S_NS, "x"}, /* a-b and c, a and b-c */
        {"spiffe://td/{k8s.ns}{k8s.sa}", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/{k8s.ns}/", AGENT_SELECTOR_K8S_NS, "x"},
        {"spiffe://td/a b/{k8s.ns}", AGENT_SELECTOR_K8S_NS, "x"},
    };
    static struct agent_msg_entry m;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct keeper_entries *set = keeper_entries_new(1, 1);
        const struct want want = {cases[i].type, 0, cases[i].text};
        uint32_t n;

        fill(&m, 0, "e", cases[i].spiffe_id, &want, 1);
        keeper_entries_add(set, &m, STR_LIT("td"));
        if (keeper_entries_check(set, NULL, &n, &n, &n, NULL) == 0) {
            fail_msg("%s was taken", cases[i].spiffe_id);
        }
        keeper_entries_free(set);
    }
}

/* A selector's value is checked by whoever judges by it. */
static void test_values_refused(void **state)
{
    static const struct want cases[] = {
        {AGENT_SELECTOR_UNIX_UID, 1, "text"},
        {AGENT_SELECTOR_UNIX_PATH, 0, "bin"},
        {AGENT_SELECTOR_UNIX_PATH, 0, ""},
        {AGENT_SELECTOR_UNIX_SHA256, 0, "6D"},
        {AGENT_SELECTOR_CONTAINER_ID, 0, "zz"},
        {AGENT_SELECTOR_CONTAINER_RUNTIME, AGENT_RUNTIME_OTHER, NULL},
        {AGENT_SELECTOR_CONTAINER_RUNTIME, AGENT_N_RUNTIMES, NULL},
        {AGENT_SELECTOR_K8S_NS, 0, NULL},
        {AGENT_SELECTOR_K8S_POD_LABEL, 0, "nocolon"},
        {AGENT_SELECTOR_K8S_POD_LABEL, 0, ":v"},
        {AGENT_SELECTOR_K8S_IMAGE_DIGEST, 0, HEX64},
    };
    static struct agent_msg_entry m;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct keeper_entries *set = keeper_entries_new(1, 1);
        uint32_t n;

        fill(&m, 0, "e", "spiffe://td/x", &cases[i], 1);
        keeper_entries_add(set, &m, STR_LIT("td"));
        if (keeper_entries_check(set, NULL, &n, &n, &n, NULL) == 0) {
            fail_msg("case %zu was taken", i);
        }
        keeper_entries_free(set);
    }
}

/* --- order, seconds, bounds ------------------------------------------------------------------- */
static void test_second_of_an_identity(void **state)
{
    static const struct plan plans[] = {
        {"template", "spiffe://td/ns/{k8s.ns}", SHOP},
        {"other", "spiffe://td/other", SHOP},
        {"same", "spiffe://td/ns/shop", SHOP},
        {"again", "spiffe://td/other", SHOP},
    };
    struct keeper_entries *set = make_set(plans, 4);
    struct keeper_facts f = in_pod();
    struct keeper_grant g;
    uint32_t places[AGENT_IDENTITIES_MAX];

    (void)state;
    assert_int_equal(keeper_entries_match(set, &f, places), 2);
    assert_int_equal(places[0], 0);
    assert_int_equal(places[1], 1);
    assert_false(keeper_entries_grant(set, &f, 2, &g)); /* its DNS names may be others */
    assert_false(keeper_entries_grant(set, &f, 4, &g));
    assert_false(keeper_entries_grant(set, &f, UINT32_MAX, &g));
    keeper_entries_free(set);
}

static uint32_t next_random(uint32_t *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 8;
}

/* Many entries of few values, so that they collide: the index finds what asking each one does. */
static void test_index_is_complete(void **state)
{
    enum { N = 300, ROUNDS = 200 };
    static struct agent_msg_entry m;
    uint32_t random = 7, n;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        struct keeper_entries *set = keeper_entries_new(1, N);
        struct keeper_facts facts[] = {on_host(), in_pod()};

        for (uint32_t i = 0; i < N; i++) {
            char id[32], spiffe_id[64];
            struct want wants[3];
            size_t n_wants = 1 + next_random(&random) % 3;

            for (size_t w = 0; w < n_wants; w++) {
                wants[w] = singles[next_random(&random) % N_SINGLES].want;
            }
            (void)snprintf(id, sizeof(id), "e%u", i);
            (void)snprintf(spiffe_id, sizeof(spiffe_id), "spiffe://td/%u", i);
            fill(&m, i, id, spiffe_id, wants, n_wants);
            keeper_entries_add(set, &m, STR_LIT("td"));
        }
        assert_int_equal(keeper_entries_check(set, NULL, &n, &n, &n, NULL), 0);
        for (size_t f = 0; f < 2; f++) {
            uint32_t places[AGENT_IDENTITIES_MAX];
            size_t found = keeper_entries_match(set, &facts[f], places), at = 0, which;

            for (uint32_t i = 0; i < N && at < AGENT_IDENTITIES_MAX; i++) {
                if (keeper_entry_judge(&set->items[i], &facts[f], &which) == KEEPER_GRANTED) {
                    assert_true(at < found);
                    assert_int_equal(places[at++], i);
                }
            }
            assert_int_equal(at, found);
        }
        keeper_entries_free(set);
    }
}

/* With as many entries as there may be, a caller looks at its own few: counted, not timed. */
static void test_full_set(void **state)
{
    static struct agent_msg_entry m;
    struct keeper_entries *set = keeper_entries_new(1, AGENT_ENTRIES_MAX);
    struct keeper_facts f = on_host();
    uint32_t places[AGENT_IDENTITIES_MAX], n;

    (void)state;
    for (uint32_t i = 0; i < AGENT_ENTRIES_MAX; i++) {
        char id[32], spiffe_id[64], path[64];
        struct want wants[] = {{AGENT_SELECTOR_UNIX_UID, 1000, NULL},
                               {AGENT_SELECTOR_UNIX_PATH, 0, path}};

        (void)snprintf(id, sizeof(id), "e%u", i);
        (void)snprintf(spiffe_id, sizeof(spiffe_id), "spiffe://td/%u", i);
        (void)snprintf(path, sizeof(path), i % 1000 == 7 ? "/usr/bin/x" : "/usr/bin/%u", i);
        fill(&m, i, id, spiffe_id, wants, 2);
        keeper_entries_add(set, &m, STR_LIT("td"));
    }
    assert_int_equal(keeper_entries_check(set, NULL, &n, &n, &n, NULL), 0);
    assert_int_equal(keeper_entries_match(set, &f, places), 5);
    for (uint32_t i = 0; i < 5; i++) {
        assert_int_equal(places[i], 1000 * i + 7);
    }
    keeper_entries_free(set);
}

/* What is remembered of a search is of those facts alone, and never of a pod's. */
static void test_remembered(void **state)
{
    static const struct plan plans[] = {
        {"mine", "spiffe://td/a", {{AGENT_SELECTOR_UNIX_UID, 1000, NULL}}, 1},
        {"other", "spiffe://td/b", {{AGENT_SELECTOR_UNIX_UID, 1001, NULL}}, 1},
        {"pod", "spiffe://td/ns/{k8s.ns}", SHOP},
    };
    struct keeper_entries *set = make_set(plans, 3);
    struct keeper_facts mine = on_host(), other = on_host(), contained = in_pod();
    struct keeper_pod moved = pod;
    struct keeper_grant g;
    uint32_t places[AGENT_IDENTITIES_MAX];

    (void)state;
    mine.state = 1;
    other.state = 2;
    other.uid = 1001;
    contained.state = 1; /* even if it were so */
    for (int i = 0; i < 3; i++) {
        assert_int_equal(keeper_entries_match(set, &mine, places), 1);
        assert_true(keeper_entries_grant(set, &mine, 0, &g));
        assert_false(keeper_entries_grant(set, &mine, 1, &g));
        assert_true(keeper_entries_grant(set, &other, 1, &g));
        assert_false(keeper_entries_grant(set, &other, 0, &g));
        assert_true(keeper_entries_grant(set, &contained, 2, &g));
        assert_string_equal(g.spiffe_id, "spiffe://td/ns/shop");
    }
    moved.ns = TEXT("yard");
    contained.pod = &moved;
    assert_true(keeper_entries_grant(set, &contained, 2, &g));
    assert_string_equal(g.spiffe_id, "spiffe://td/ns/yard");
    keeper_entries_free(set);
}

/* As many entries as there may be, all of them one caller's, and then each asked for by itself, as
 * the service does. This would take minutes if each question were a search. */
static void test_many_identities(void **state)
{
    static struct agent_msg_entry m;
    const struct want want = {AGENT_SELECTOR_UNIX_UID, 1000, NULL};
    struct keeper_entries *set = keeper_entries_new(1, AGENT_ENTRIES_MAX);
    struct keeper_facts f = on_host();
    uint32_t places[AGENT_IDENTITIES_MAX], n;
    struct keeper_grant g;

    (void)state;
    for (uint32_t i = 0; i < AGENT_ENTRIES_MAX; i++) {
        char id[32], spiffe_id[64];

        (void)snprintf(id, sizeof(id), "e%u", i);
        (void)snprintf(spiffe_id, sizeof(spiffe_id), "spiffe://td/%u", i);
        fill(&m, i, id, spiffe_id, &want, 1);
        keeper_entries_add(set, &m, STR_LIT("td"));
    }
    assert_int_equal(keeper_entries_check(set, NULL, &n, &n, &n, NULL), 0);
    f.state = 7;
    for (uint32_t i = 0; i < AGENT_IDENTITIES_MAX; i++) {
        assert_int_equal(keeper_entries_match(set, &f, places), AGENT_IDENTITIES_MAX);
        assert_true(keeper_entries_grant(set, &f, places[i], &g));
        assert_int_equal(g.place, i);
    }
    assert_false(keeper_entries_grant(set, &f, AGENT_IDENTITIES_MAX, &g));
    keeper_entries_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_known),    cmocka_unit_test(test_values_refused),
        cmocka_unit_test(test_template_refused), cmocka_unit_test(test_template_values),
        cmocka_unit_test(test_contained),        cmocka_unit_test(test_second_of_an_identity),
        cmocka_unit_test(test_selectors),        cmocka_unit_test(test_all_must_hold),
        cmocka_unit_test(test_template),         cmocka_unit_test(test_index_is_complete),
        cmocka_unit_test(test_full_set),         cmocka_unit_test(test_remembered),
        cmocka_unit_test(test_many_identities),
    };

    return cmocka_run_group_tests_name("match", tests, NULL, NULL);
}
