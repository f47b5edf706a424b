/* A file of kind Rotate: it loads and then holds what its table promises, or there is an error. */
#include "conf_fuzz.h"

#include <postern/conf_rotate.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the daemon believes without looking again: names are plain, and no key is for everybody. */
static void check_output(const struct conf_rotate_output *o)
{
    assert(o->name[0] != '\0' && o->directory[0] == '/');
    assert(o->n_files > 0 && o->n_files <= CONF_ROTATE_FILES_MAX);
    assert((o->mode & 0007) == 0 && (o->mode & 0133) == 0 && (o->public_mode & 0133) == 0);
    assert(o->keep >= 1);
    for (size_t i = 0; i < o->n_files; i++) {
        const struct conf_rotate_file *f = &o->files[i];
        assert(f->name[0] != '\0' && strchr(f->name, '/') == NULL);
        assert(strncmp(f->name, "..", 2) != 0 && strcmp(f->name, ".") != 0);
        assert((f->audience.n > 0) == (f->what == CONF_ROTATE_JWT));
        conf_fuzz_check_texts(&f->audience);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct conf_diag *diag = conf_diag_new();
    struct conf_rotate *conf = NULL;
    bool loaded = conf_parse_rotate("/f.yaml", (const char *)data, size, diag, &conf) == 0;
    conf_fuzz_check_diag(diag, loaded, conf != NULL);
    if (loaded) {
        assert(conf->n_outputs > 0 && conf->n_outputs <= CONF_ROTATE_OUTPUTS_MAX);
        for (size_t i = 0; i < conf->n_outputs; i++) {
            check_output(&conf->outputs[i]);
        }
    }
    conf_rotate_free(conf);
    return 0;
}
