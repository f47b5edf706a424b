/* A file as an array: `embed IN OUT NAME` writes C that defines `const unsigned char NAME[]` and
 * `const size_t NAME_size`. Runs at build. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: embed IN OUT NAME\n");
        return 2;
    }
    FILE *in = fopen(argv[1], "rbe");
    FILE *out = fopen(argv[2], "we");
    size_t n = 0;
    if (in == NULL || out == NULL) {
        (void)fprintf(stderr, "embed: cannot open %s or %s\n", argv[1], argv[2]);
        if (in != NULL) {
            (void)fclose(in);
        }
        if (out != NULL) {
            (void)fclose(out);
        }
        return 1;
    }
    (void)fprintf(out, "#include <stddef.h>\n\nextern const unsigned char %s[];\n", argv[3]);
    (void)fprintf(out, "extern const size_t %s_size;\nconst unsigned char %s[] = {", argv[3],
                  argv[3]);
    for (int c = fgetc(in); c != EOF; c = fgetc(in)) {
        (void)fprintf(out, "%s%d,", n++ % 20 == 0 ? "\n" : "", c);
    }
    (void)fprintf(out, "\n};\nconst size_t %s_size = %zu;\n", argv[3], n);
    int bad = ferror(in);
    (void)fclose(in);
    return fclose(out) == 0 && bad == 0 ? 0 : 1;
}
