/* actions_digest: FNV-1a over what the runner does for a configuration, field by field, each with
 * its end marked, so that no two fields run into each other. */
#include <postern/actions_wire.h>

#include <string.h>

static uint64_t add(uint64_t h, const void *p, size_t n)
{
    const uint8_t *b = p;

    for (size_t i = 0; i < n; i++) {
        h = (h ^ b[i]) * UINT64_C(1099511628211);
    }
    return h;
}

static uint64_t add_number(uint64_t h, uint64_t v)
{
    return add(h, &v, sizeof(v));
}

static uint64_t add_text(uint64_t h, const char *text)
{
    return text != NULL ? add(h, text, strlen(text) + 1) : add_number(h, UINT64_MAX);
}

static uint64_t add_words(uint64_t h, const struct conf_words *w)
{
    h = add_number(h, w->n);
    for (size_t i = 0; i < w->n; i++) {
        h = add_text(h, w->items[i]);
    }
    return h;
}

static uint64_t add_action(uint64_t h, const struct conf_after *a)
{
    h = add_number(h, a->kind);
    h = add_text(h, a->signal.pid_file);
    h = add_number(h, a->signal.pid);
    h = add_number(h, a->signal.child);
    h = add_number(h, (uint64_t)a->signal.signo);
    h = add_text(h, a->signal.executable);
    h = add_number(h, a->signal.any_mounts);
    h = add_words(h, &a->command.argv);
    h = add_number(h, a->command.has_user);
    h = add_number(h, a->command.uid);
    h = add_number(h, a->command.gid);
    h = add_text(h, a->command.home);
    for (size_t i = 0; i < CONF_N_SYSTEMD_VERBS; i++) {
        h = add_text(h, a->systemd.units[i]);
    }
    h = add_text(h, a->systemd.systemctl);
    h = add_number(h, a->http.method);
    h = add_text(h, a->http.url_text);
    h = add_words(h, &a->http.headers);
    h = add_text(h, a->http.body);
    h = add_words(h, &a->http.expect_words);
    h = add_text(h, a->http.ca_file);
    return add_number(h, a->timeout_ms);
}

uint64_t actions_digest(const struct conf_rotate *conf)
{
    uint64_t h = UINT64_C(14695981039346656037);

    h = add_number(h, conf->n_outputs);
    for (size_t i = 0; i < conf->n_outputs; i++) {
        const struct conf_rotate_output *o = &conf->outputs[i];

        h = add_text(h, o->name);
        h = add_text(h, o->directory);
        h = add_number(h, o->n_after);
        for (size_t k = 0; k < o->n_after; k++) {
            h = add_action(h, &o->after[k]);
        }
        h = add_number(h, o->verify.present);
        h = add_text(h, o->verify.url_text);
        h = add_text(h, o->verify.server_name);
        h = add_number(h, o->verify.timeout_ms);
    }
    return h;
}
