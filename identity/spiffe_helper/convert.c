/* convert: spiffe-helper's keys, one by one, into a Rotate file. docs/spiffe-helper.md has the
 * table. */
#include "spiffe_helper_priv.h"

#include <postern/mem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_LEN_MAX = 3000 };

/* --- health ----------------------------------------------------------------------------------- */
static bool is_health_key(const struct hcl_node *n, bool *ret_typed)
{
    static const struct {
        const char *name;
        enum hcl_kind kind;
    } keys[] = {{"listener_enabled", HCL_BOOL},
                {"bind_port", HCL_NUMBER},
                {"liveness_path", HCL_STRING},
                {"readiness_path", HCL_STRING}};

    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (strcmp(keys[i].name, n->key) == 0) {
            *ret_typed = n->kind == keys[i].kind;
            return true;
        }
    }
    return false;
}

static void put_health(struct helper *c)
{
    const struct hcl_node *h = c->at[HEALTH_CHECKS];
    const struct hcl_node *enabled, *port;
    uint64_t number;

    if (h == NULL) {
        return;
    }
    for (const struct hcl_node *n = h->child; n != NULL; n = n->next) {
        bool typed = false;

        if (!is_health_key(n, &typed)) {
            helper_refuse(c, n, "'%s' is no key of spiffe-helper's in 'health_checks'", n->key);
            return;
        }
        if (!typed) {
            helper_refuse(c, n, "'%s' in 'health_checks' is of another type", n->key);
            return;
        }
    }
    enabled = helper_find(h, "listener_enabled");
    port = helper_find(h, "bind_port");
    if (enabled == NULL || !enabled->truth || !c->daemon) {
        return;
    }
    number = helper_integer(c, port, HELPER_HEALTH_PORT);
    if (number > 65535) {
        helper_refuse(c, port, "'bind_port' is no port");
        return;
    }
    helper_put(c, "metrics: {address: '0.0.0.0:%u'}\n", (unsigned)number);
    helper_note(c, h,
                "'health_checks': readiness is GET /ready, whatever 'readiness_path' says; for "
                "liveness ask GET /metrics, which answers as long as the daemon does");
}

/* --- the file --------------------------------------------------------------------------------- */
static void check_sets(struct helper *c)
{
    int n_x509 = (helper_text(c, SVID_FILE_NAME)[0] != '\0') +
                 (helper_text(c, SVID_KEY_FILE_NAME)[0] != '\0') +
                 (helper_text(c, SVID_BUNDLE_FILE_NAME)[0] != '\0');

    c->x509 = n_x509 == 3;
    c->daemon = helper_truth(c, DAEMON_MODE, true);
    if (n_x509 != 0 && n_x509 != 3) {
        helper_refuse(c, NULL,
                      "of 'svid_file_name', 'svid_key_file_name' and 'svid_bundle_file_name' all "
                      "or none have to be there, as spiffe-helper wants it");
    }
    if (helper_text(c, HINT)[0] != '\0' && c->options->spiffe_id == NULL) {
        helper_refuse(c, c->at[HINT],
                      "'hint': identities are chosen by their names here; say which, with "
                      "--spiffe-id ID");
    }
    if (helper_text(c, CERT_DIR)[0] == '\0') {
        helper_refuse(c, c->at[CERT_DIR],
                      "'cert_dir' is not there: files would be written to wherever "
                      "spiffe-helper was started");
    }
    if (strlen(helper_text(c, CERT_DIR)) > PATH_LEN_MAX ||
        strlen(helper_text(c, CMD)) > PATH_LEN_MAX ||
        strlen(helper_text(c, PID_FILE_NAME)) > PATH_LEN_MAX) {
        helper_refuse(c, NULL, "a path of more than %d bytes", PATH_LEN_MAX);
    }
    if (n_x509 == 0 && helper_tokens(c) == 0 && helper_text(c, JWT_BUNDLE_FILE_NAME)[0] == '\0') {
        helper_refuse(c, NULL,
                      "there is nothing to write: neither an SVID nor tokens nor their keys");
    }
    if (helper_tokens(c) > HELPER_TOKENS_MAX) {
        helper_refuse(c, c->at[JWT_SVIDS], "more than %d tokens", HELPER_TOKENS_MAX);
    }
}

static void put_socket(struct helper *c)
{
    const char *address = helper_text(c, AGENT_ADDRESS);

    if (address[0] == '\0') {
        helper_note(c, c->at[AGENT_ADDRESS],
                    "'agent_address' is not there: %s, or what SPIFFE_ENDPOINT_SOCKET says when "
                    "'identity' is taken out",
                    HELPER_SOCKET);
        address = HELPER_SOCKET;
    }
    if (address[0] != '/') {
        helper_refuse(c, c->at[AGENT_ADDRESS], "'agent_address' is no absolute path of a socket");
        return;
    }
    if (strlen(address) > 107) {
        helper_refuse(c, c->at[AGENT_ADDRESS],
                      "'agent_address' is longer than a socket's path can be");
        return;
    }
    helper_put(c, "identity: {socket: ");
    mem_autofree char *unix_socket = mem_must_printf("unix:%s", address);
    helper_put_quoted(c, unix_socket);
    helper_put(c, "}\n");
}

static void put_head(struct helper *c)
{
    helper_put(c, "# Runs as: postern rotate%s FILE", c->daemon ? "" : " --once");
    helper_put_child(c);
    helper_put(c, "\nkind: Rotate\nlevel: 1\n");
}

static void put_all(struct helper *c)
{
    put_head(c);
    put_socket(c);
    put_health(c);
    helper_put(c, "outputs:\n  - name: spiffe-helper\n    directory: ");
    helper_put_path(c, helper_text(c, CERT_DIR));
    helper_put(c, "\n    identity: {key: agent");
    if (c->options->spiffe_id != NULL) {
        helper_put(c, ", spiffe_id: ");
        helper_put_quoted(c, c->options->spiffe_id);
    }
    helper_put(c, "}\n");
    helper_put_modes(c);
    helper_put(c, "    omit_expired: %s\n    replace_files: true\n    files:\n",
               helper_truth(c, OMIT_EXPIRED, false) ? "true" : "false");
    helper_put_files(c);
    helper_put_actions(c);
}

int spiffe_helper_convert(const char *text, size_t len, const struct spiffe_helper_options *options,
                          spiffe_helper_tell_fn tell_fn, void *arg, struct buf *out,
                          struct err *err)
{
    struct buf made = BUF_INIT(SPIFFE_HELPER_OUT_MAX);
    struct helper c = {.options = options, .tell = tell_fn, .arg = arg, .out = &made};
    struct hcl_node *root =
        len <= SPIFFE_HELPER_FILE_MAX ? hcl_parse(options->name, text, len, err) : NULL;
    int r = -1;

    if (len > SPIFFE_HELPER_FILE_MAX) {
        err_set(err, ERR_LIMIT, "%s is larger than %d bytes", options->name,
                SPIFFE_HELPER_FILE_MAX);
    }
    if (root != NULL) {
        helper_collect(&c, root);
        check_sets(&c);
        helper_check_actions(&c);
        if (helper_text(&c, CERT_DIR)[0] != '\0') {
            put_all(&c);
        }
        if (c.refused) {
            err_set(err, ERR_UNSUPPORTED, "%s says what cannot be carried over", options->name);
        } else if (c.full || !buf_append_str(out, buf_str(&made))) {
            err_set(err, ERR_LIMIT, "what %s says does not fit", options->name);
        } else {
            r = 0;
        }
    }
    for (size_t i = 0; i < c.args.n; i++) {
        free(c.args.items[i]);
    }
    buf_reset(&made);
    (void)hcl_free(root);
    return r;
}
