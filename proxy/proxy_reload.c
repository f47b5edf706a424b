/*
 * Configuration read again. Files are read, parsed and compiled by a thread that lives for the one
 * reload, since a policy of many rules takes its time and the admin socket shall not wait for it;
 * the main thread then looks whether this process can go on with them, and takes them whole or not
 * at all. Whoever asks again meanwhile has the files read once more after that.
 */
#include "proxy_priv.h"

#include <postern/loop_job.h>
#include <postern/mem.h>
#include <postern/os.h>
#include <stdlib.h>

enum { TIDY_MS = 1000 }; /* after a change that took much memory for a moment */

struct proxy_reloading {
    struct proxy *p;
    struct loop_job *job;
    uint64_t generation;
    struct conf_diag *diag;      /* owned */
    struct snapshot_files *next; /* a reference; NULL: they have errors */
    struct err err;
    bool again;
};

/* On its own thread: of the proxy only what never changes. */
static void read_files(void *arg)
{
    struct proxy_reloading *r = arg;
    struct conf_proxy *conf = NULL;
    if (proxy_read_conf(r->p, r->diag, &conf) == 0) {
        (void)snapshot_files_new(conf, r->generation, r->diag, &r->next, &r->err);
    }
}

static void log_reloaded(const struct proxy *p)
{
    struct log_line l;
    log_begin(&l, p->log, LOG_INFO, "reloaded");
    log_uint(&l, "generation", p->generation);
    log_uint(&l, "rules", p->files->n_rules);
    log_uint(&l, "services", route_count(p->files->routes));
    log_end(&l);
}

static void use(struct proxy *p, struct snapshot_files *next,
                struct proxy_credentials_change *credentials)
{
    p->reload.ok++;
    p->reload.last_failed = false;
    p->reload.error[0] = '\0';
    snapshot_files_unref(p->files);
    p->files = next;
    proxy_credentials_commit(p, credentials);
    proxy_claims_use(p);
    log_set_level(p->log, next->conf->log_level);
    proxy_warn(p);
    proxy_permissive_use(p);
    proxy_publish(p);
    loop_timer_arm(&p->tidy_timer, TIDY_MS);
    proxy_names_tell(p);
    log_reloaded(p);
}

static void start(struct proxy *p);

static void on_read(void *arg)
{
    struct proxy_reloading *r = arg;
    struct proxy *p = r->p;
    struct proxy_credentials_change credentials = {.set = NULL};
    bool again = r->again;
    p->reloading = NULL;
    p->reload.at_s = os_wall_s();
    if (r->next == NULL || snapshot_files_compatible(p->files, r->next, &r->err) == -1 ||
        proxy_plan_covers(p, r->next->conf, &r->err) == -1 ||
        proxy_names_cover(p, r->next, &r->err) == -1 ||
        proxy_credentials_prepare(p, r->next, &credentials, &r->err) == -1) {
        snapshot_files_unref(r->next);
        report_reload_failed(&p->reload, p->log, r->diag, &r->err);
    } else {
        use(p, r->next, &credentials);
    }
    conf_diag_free(r->diag);
    free(r);
    if (again) {
        start(p);
    } else {
        proxy_restart_reloaded(p);
    }
}

static void start(struct proxy *p)
{
    struct proxy_reloading *r = mem_must_new(struct proxy_reloading);
    *r = (struct proxy_reloading){
        .p = p, .generation = p->files->generation + 1, .diag = conf_diag_new(), .err = ERR_INIT};
    p->reloading = r;
    r->job = loop_job_start(p->loop, read_files, on_read, r);
}

void proxy_reload(struct proxy *p)
{
    if (p->reloading != NULL) {
        p->reloading->again = true;
        return;
    }
    proxy_restart_reloading(p);
    start(p);
}

void proxy_reload_stop(struct proxy *p)
{
    struct proxy_reloading *r = p->reloading;
    p->reloading = NULL;
    if (r != NULL) {
        loop_job_drop(r->job);
        snapshot_files_unref(r->next);
        conf_diag_free(r->diag);
        free(r);
    }
}
