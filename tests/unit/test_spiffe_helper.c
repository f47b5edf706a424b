/* spiffe-helper's configuration: what is refused, key by key, and what is made of the rest. */
#include <postern/conf_rotate.h>
#include <postern/spiffe_helper.h>

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SVID                                                                                       \
    "svid_file_name = \"a.pem\"\nsvid_key_file_name = \"k.pem\"\nsvid_bundle_file_name = "         \
    "\"b.pem\"\n"
#define BASE "agent_address = \"/run/agent.sock\"\ncert_dir = \"certs\"\n" SVID

struct heard {
    struct buf refusals, notes;
};

static void on_tell(void *arg, bool refused, const char *text)
{
    struct heard *h = arg;

    assert_true(buf_printf(refused ? &h->refusals : &h->notes, "%s\n", text));
}

/* The Rotate file of it, or NULL and why. */
static struct conf_rotate *convert(const char *text, const struct spiffe_helper_options *o,
                                   char *ret_why, char *ret_notes, char *ret_text)
{
    struct heard h = {.refusals = BUF_INIT(1 << 20), .notes = BUF_INIT(1 << 20)};
    struct buf out = BUF_INIT(SPIFFE_HELPER_OUT_MAX);
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    struct err err = ERR_INIT;
    int r = spiffe_helper_convert(text, strlen(text), o, on_tell, &h, &out, &err);
    char line[1200];

    (void)snprintf(ret_why, 4096, "%.*s%s", STR_ARG(buf_str(&h.refusals)),
                   r == -1 ? err_text(&err, line, sizeof(line)) : "");
    (void)snprintf(ret_notes, 4096, "%.*s", STR_ARG(buf_str(&h.notes)));
    (void)snprintf(ret_text, 8192, "%.*s", STR_ARG(buf_str(&out)));
    if (r == 0) {
        if (conf_parse_rotate("/f", (const char *)buf_head(&out), buf_len(&out), diag, &conf) !=
            0) {
            fail_msg("%s\n%s", conf_diag_get(diag, 0)->what, ret_text);
        }
    } else {
        assert_int_equal(buf_len(&out), 0);
    }
    conf_diag_free(diag);
    buf_reset(&h.refusals);
    buf_reset(&h.notes);
    buf_reset(&out);
    return conf;
}

static const struct spiffe_helper_options plain = {.name = "h.conf", .directory = "/base"};
static const struct spiffe_helper_options with = {.name = "h.conf",
                                                  .directory = "/base",
                                                  .executable = "/usr/sbin/nginx",
                                                  .spiffe_id = "spiffe://a.b/c"};

static const struct {
    const char *text, *says;
} refused[] = {
    /* the language */
    {"a = ", "h.conf:1:5: no value"},
    {"cert_dir \"/c\"", "neither '=' nor '{'"},
    {"cert_dir = \"/c", "does not end"},
    {"cert_dir = \"/c\n\"", "goes over its line"},
    {"cert_dir = \"${x}\"", "no interpolation"},
    {"cert_dir = \"\\x41\"", "an escape"},
    {"cert_dir = \"\\u0000\"", "\\u0000"},
    {"cert_dir = <<EOF\n/c\nEOF\n", "here-document"},
    {"cert_dir = \"/a\"\ncert_dir = \"/b\"", "h.conf:2:10: key 'cert_dir' twice"},
    {"/* x", "comment that does not end"},
    {"}", "without its '{'"},
    {"a = {", "not ended"},
    {"a = [1 2]", "without ',' or ']'"},
    {"a = [[[[[[[[[[1]]]]]]]]]]", "nested deeper"},
    /* keys */
    {BASE "log_level = \"debug\"\n", "'log_level' is no key of spiffe-helper's"},
    {BASE "agentAddress = \"/x\"\n", "'agentAddress' is no key"},
    {BASE "daemon_mode = \"yes\"\n", "'daemon_mode' is not true or false"},
    {BASE "cmd = [\"a\"]\n", "'cmd' is not a string"},
    {"agent_address = \"/s\"\n" SVID, "'cert_dir' is not there"},
    {"cert_dir = \"/c\"\n", "nothing to write"},
    {"cert_dir = \"/c\"\nsvid_file_name = \"a\"\n", "all or none"},
    {"cert_dir = \"/c\"\nagent_address = \"run/s\"\n" SVID, "no absolute path of a socket"},
    {"cert_dir = \"/c\"\nagent_address = \"npipe:x\"\n" SVID, "no absolute path of a socket"},
    {BASE "hint = \"db\"\n", "'hint'"},
    {BASE "jwt_bundle_file_name = \"a/j\"\n", "'jwt_bundle_file_name' is not the plain name"},
    {BASE "jwt_bundle_file_name = \"b.pem\"\n", "two files are called 'b.pem'"},
    {"cert_dir = \"/c\"\njwt_bundle_file_name = \"j\"\njwt_bundle_file_mode = 0666\n",
     "'jwt_bundle_file_mode' is 0666"},
    {BASE "pid_file_name = \"p\"\nrenew_signal = \"SIGHUP\"\n", "--executable"},
    {BASE "pid_file_name = \"p\"\n", "without 'renew_signal'"},
    {BASE "daemon_mode = false\npid_file_name = \"p\"\nrenew_signal = \"SIGHUP\"\n",
     "which spiffe-helper refuses as well"},
    {BASE "cmd = \"a\"\nrenew_signal = \"SIGKILL\"\n", "'renew_signal' SIGKILL"},
    {BASE "cmd = \"a\"\nrenew_signal = \"HUP\"\n", "'renew_signal' HUP"},
    {BASE "cmd_args = \"a\"\n", "'cmd_args' without 'cmd'"},
    {BASE "cmd = \"a\"\ncmd_args = \"b  c\"\n", "an empty word"},
    {BASE "cmd = \"a\"\ncmd_args = \"b \"\n", "ends with a space"},
    {BASE "cmd = \"a\"\ncmd_args = \"b\\\"c\"\n", "a quote inside"},
    {BASE "cmd = \"a\"\ncmd_args = \"\\\"b\"\n", "not ended"},
    {BASE "cmd = \"a\"\ncmd_args = \"b\\nc\"\n", "control characters"},
    {BASE "key_file_mode = 0444\n", "--key-mode 0440"},
    {BASE "key_file_mode = 444\n", "without a 0 in front"},
    {BASE "key_file_mode = 0660\n", "'key_file_mode' is 0660"},
    {BASE "cert_file_mode = 0666\n", "'cert_file_mode' is 0666"},
    {BASE "cert_file_mode = 0x\n"
          "cert_file_mode2 = 1\n",
     "no key"},
    {BASE "cert_file_mode = 09\n", "no whole number"},
    {BASE
     "jwt_svids = [{jwt_audience = \"a\", jwt_svid_file_name = \"t\"}]\nkey_file_mode = 0440\n",
     "differ (0440, 0600)"},
    {BASE "jwt_svids = [{jwt_audience = \"a\"}]\n", "needs 'jwt_audience'"},
    {BASE "jwt_svids = [{jwt_audience = \"a\", jwt_svid_file_name = \"t\", x = 1}]\n",
     "'x' is no key of spiffe-helper's in 'jwt_svids'"},
    {BASE "jwt_svids = [1]\n", "something else than objects"},
    {BASE "jwt_svids = [{jwt_audience = \"a\", jwt_svid_file_name = \"../t\"}]\n", "plain name"},
    {BASE "jwt_svids = [{jwt_audience = \"a\", jwt_svid_file_name = \"k.pem\"}]\n",
     "two files are called 'k.pem'"},
    {"cert_dir = \"/c\"\nsvid_file_name = \"x/a\"\nsvid_key_file_name = "
     "\"k\"\nsvid_bundle_file_name = \"b\"\n",
     "'svid_file_name' is not the plain name"},
    {BASE "health_checks { listener_enabled = true bind_port = 70000 }\n", "no port"},
    {BASE "health_checks { path = \"/x\" }\n", "in 'health_checks'"},
    {BASE "health_checks { listener_enabled = 1 }\n", "another type"},
};

static void test_refused(void **state)
{
    char why[4096], notes[4096], text[8192];

    (void)state;
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        struct conf_rotate *conf = convert(refused[i].text, &plain, why, notes, text);

        if (conf != NULL || strstr(why, refused[i].says) == NULL) {
            fail_msg("%s\nwanted: %s\nsaid: %s", refused[i].text, refused[i].says, why);
        }
    }
}

static struct conf_rotate *good(const char *file, const struct spiffe_helper_options *o,
                                char *ret_notes, char *ret_text)
{
    char why[4096];
    struct conf_rotate *conf = convert(file, o, why, ret_notes, ret_text);

    if (conf == NULL) {
        fail_msg("%s\n%s", file, why);
    }
    return conf;
}

static void test_plain(void **state)
{
    char notes[4096], text[8192];
    struct conf_rotate *r = good(BASE, &plain, notes, text);
    const struct conf_rotate_output *o = &r->outputs[0];

    (void)state;
    assert_string_equal(notes, "");
    assert_string_equal(r->socket, "/run/agent.sock");
    assert_string_equal(o->directory, "/base/certs");
    assert_int_equal(o->n_files, 3);
    assert_string_equal(o->files[0].name, "a.pem");
    assert_int_equal(o->files[0].what, CONF_ROTATE_CHAIN);
    assert_int_equal(o->files[1].what, CONF_ROTATE_KEY);
    assert_int_equal(o->files[2].what, CONF_ROTATE_BUNDLE);
    assert_int_equal(o->files[2].trust, CONF_ROTATE_OWN);
    assert_int_equal(o->mode, 0600);
    assert_int_equal(o->public_mode, 0644);
    assert_false(o->omit_expired);
    assert_true(o->replace_files);
    assert_int_equal(o->n_after, 0);
    assert_non_null(strstr(text, "# Runs as: postern rotate FILE\n"));
    conf_rotate_free(r);
}

/* Every other key at once, in the language's other forms. */
static void test_all_keys(void **state)
{
    static const char file[] =
        "# a comment\n// another\n/* and\none */ cert_dir = \"/c\\u0064\", " SVID
        "\"agent_address\" = \"/run/agent.sock\"\n"
        "include_federated_domains = true\nadd_intermediates_to_bundle = true\n"
        "omit_expired = true\ndaemon_mode = true\nhint = \"x\"\n"
        "cert_file_mode = 0o444\nkey_file_mode = 416\njwt_svid_file_mode = \"0640\"\n"
        "pid_file_name = \"run/p\"\nrenew_signal = \"SIGUSR1\"\n"
        "jwt_svids = [{jwt_audience = \"a\", jwt_extra_audiences = [\"b\", \"c's\",], "
        "jwt_svid_file_name = \"t\"}, {\n jwt_audience = \"d\"\n jwt_svid_file_name = \"u\" }]\n"
        "jwt_bundle_file_mode = 0600\n"
        "health_checks {\n  listener_enabled = true\n  bind_port = 0x1f90\n  liveness_path = "
        "\"/l\"\n}\n";
    char notes[4096], text[8192];
    struct conf_rotate *r = good(file, &with, notes, text);
    const struct conf_rotate_output *o = &r->outputs[0];

    (void)state;
    assert_string_equal(o->directory, "/cd");
    assert_string_equal(o->spiffe_id, "spiffe://a.b/c");
    assert_int_equal(o->n_files, 5);
    assert_int_equal(o->files[0].what, CONF_ROTATE_LEAF);
    assert_true(o->files[2].add_intermediates);
    assert_int_equal(o->files[2].trust, CONF_ROTATE_ALL);
    assert_int_equal(o->files[3].what, CONF_ROTATE_JWT);
    assert_int_equal(o->files[3].audience.n, 3);
    assert_string_equal(o->files[3].audience.items[2], "c's");
    assert_string_equal(o->files[4].name, "u");
    assert_int_equal(o->mode, 0640);
    assert_int_equal(o->public_mode, 0444);
    assert_true(o->omit_expired);
    assert_int_equal(o->n_after, 1);
    assert_string_equal(o->after[0].signal.pid_file, "/base/run/p");
    assert_string_equal(o->after[0].signal.executable, "/usr/sbin/nginx");
    assert_int_equal(o->after[0].signal.signo, SIGUSR1);
    assert_true(r->metrics.len > 0);
    assert_non_null(strstr(notes, "'health_checks'"));
    conf_rotate_free(r);
}

/* The example that its own documentation gives, but for the mode of its keys. */
static void test_its_own_example(void **state)
{
    static const char file[] =
        "agent_address = \"/tmp/spire-agent/public/api.sock\"\ncmd = \"ghostunnel\"\n"
        "cmd_args = \"server --listen localhost:8002 --keystore certs/svid_key.pem\"\n"
        "cert_dir = \"certs\"\nrenew_signal = \"SIGUSR1\"\n" SVID
        "jwt_svids = [{jwt_audience=\"your-audience\",jwt_extra_audiences=[\"b\", \"c\"], "
        "jwt_svid_file_name=\"jwt_svid.token\"}]\njwt_bundle_file_name = \"bundle.json\"\n"
        "cert_file_mode = 0444\nkey_file_mode = 0444\njwt_bundle_file_mode = 0444\n"
        "jwt_svid_file_mode = 0444\n";
    struct spiffe_helper_options o = plain;
    char why[4096], notes[4096], text[8192];
    struct conf_rotate *r;

    (void)state;
    assert_null(convert(file, &plain, why, notes, text));
    assert_non_null(strstr(why, "'key_file_mode' is 0444"));
    assert_non_null(strstr(why, "'jwt_svid_file_mode' is 0444"));
    o.key_mode = 0440;
    r = good(file, &o, notes, text);
    assert_int_equal(r->outputs[0].n_files, 5);
    assert_int_equal(r->outputs[0].files[4].what, CONF_ROTATE_JWT_BUNDLES);
    assert_string_equal(r->outputs[0].files[4].name, "bundle.json");
    assert_int_equal(r->outputs[0].mode, 0440);
    assert_int_equal(r->outputs[0].public_mode, 0444);
    assert_null(strstr(notes, "bundle.json"));
    conf_rotate_free(r);
}

static void test_key_sets(void **state)
{
    char notes[4096], text[8192];
    struct conf_rotate *r = good(BASE "jwt_bundle_file_name = \"j\"\n", &plain, notes, text);

    (void)state;
    assert_int_equal(r->outputs[0].n_files, 4);
    assert_int_equal(r->outputs[0].public_mode, 0644);
    assert_non_null(strstr(notes, "'j' has the mode of 'cert_file_mode' (0644)"));
    conf_rotate_free(r);
    r = good("cert_dir = \"/c\"\njwt_bundle_file_name = \"j\"\n", &plain, notes, text);
    assert_int_equal(r->outputs[0].n_files, 1);
    assert_int_equal(r->outputs[0].files[0].what, CONF_ROTATE_JWT_BUNDLES);
    assert_int_equal(r->outputs[0].public_mode, 0600);
    conf_rotate_free(r);
}

static void test_reload_command(void **state)
{
    char notes[4096], text[8192];
    struct conf_rotate *r =
        good(BASE "cmd = \"psql\"\nrenew_signal = \"\"\n"
                  "cmd_args = \"-p 5432 -c \\\"SELECT \\\"\\\"x\\\"\\\";\\\" it's\"\n",
             &plain, notes, text);
    const struct conf_after *a = &r->outputs[0].after[0];
    static const char *const argv[] = {"/usr/bin/env", "psql",          "-p",  "5432",
                                       "-c",           "SELECT \"x\";", "it's"};

    (void)state;
    assert_int_equal(a->kind, CONF_AFTER_COMMAND);
    assert_int_equal(a->command.argv.n, 7);
    for (size_t i = 0; i < 7; i++) {
        assert_string_equal(a->command.argv.items[i], argv[i]);
    }
    assert_non_null(strstr(notes, "run after each change"));
    conf_rotate_free(r);
    r = good(BASE "cmd = \"bin/reload\"\n", &plain, notes, text);
    assert_string_equal(r->outputs[0].after[0].command.argv.items[0], "/base/bin/reload");
    conf_rotate_free(r);
}

static void test_child_and_pid_file(void **state)
{
    char notes[4096], text[8192];
    struct conf_rotate *r =
        good(BASE "cmd = \"server\"\ncmd_args = \"a \\\"b c\\\" d'e\"\nrenew_signal = \"SIGHUP\"\n"
                  "pid_file_name = \"/run/p\"\n",
             &with, notes, text);

    (void)state;
    assert_non_null(
        strstr(text, "# Runs as: postern rotate FILE -- 'server' 'a' 'b c' 'd'\\''e'\n"));
    assert_int_equal(r->outputs[0].n_after, 2);
    assert_true(r->outputs[0].after[0].signal.child);
    assert_string_equal(r->outputs[0].after[1].signal.pid_file, "/run/p");
    assert_non_null(strstr(notes, "supervised child"));
    conf_rotate_free(r);
}

static void test_once(void **state)
{
    char notes[4096], text[8192];
    struct conf_rotate *r =
        good("cert_dir = \"/c\"\ndaemon_mode = false\ncmd = \"x\"\nkey_file_mode = 0777\n"
             "jwt_svids = {jwt_audience = \"a\", jwt_svid_file_name = \"t\"}\n",
             &plain, notes, text);

    (void)state;
    assert_non_null(strstr(text, "postern rotate --once FILE"));
    assert_int_equal(r->outputs[0].n_files, 1);
    assert_int_equal(r->outputs[0].n_after, 0);
    assert_non_null(strstr(notes, "is not run with 'daemon_mode = false'"));
    assert_non_null(strstr(notes, "/tmp/spire-agent/public/api.sock"));
    conf_rotate_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_all_keys),
        cmocka_unit_test(test_its_own_example),
        cmocka_unit_test(test_key_sets),
        cmocka_unit_test(test_reload_command),
        cmocka_unit_test(test_child_and_pid_file),
        cmocka_unit_test(test_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
