/* Runs two programs through every function of tcc.h: y[n, 5] = x[n, 5] + bias[5], and one that splits texts into words. */
#include "tcc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                            \
    do {                                                                                            \
        if (!(condition)) {                                                                         \
            fprintf(stderr, "line %d: %s; last error: %s\n", __LINE__, #condition, tcc_last_error()); \
            exit(1);                                                                                \
        }                                                                                           \
    } while (0)

static void run(tcc_session *session, int64_t n, float *own_memory, size_t own_bytes) {
    float *x = malloc((size_t)(n ? n : 1) * 5 * sizeof(float));
    for (int64_t i = 0; i < n * 5; i++) x[i] = (float)i;
    tcc_tensor input = {.dtype = TCC_F32, .rank = 2, .shape = {n, 5}, .data = x, .bytes = (size_t)n * 20};
    tcc_tensor output = {.dtype = TCC_F32, .data = own_memory, .bytes = own_bytes};
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_OK);
    CHECK(output.dtype == TCC_F32 && output.rank == 2 && output.shape[0] == n && output.shape[1] == 5);
    CHECK(output.bytes == (size_t)n * 20);
    CHECK(own_memory == NULL || output.data == own_memory);
    const float *y = output.data;
    for (int64_t i = 0; i < n * 5; i++) CHECK(y[i] == (float)i + (float)(i % 5 + 1));
    free(x);
}

/* words[n, most], counts[n] = split(text[n]) */
static void split(const char *path) {
    tcc_executable *executable;
    tcc_session *session;
    CHECK(tcc_load(path, &executable) == TCC_OK);
    CHECK(tcc_session_create(executable, 1, &session) == TCC_OK);
    const char *texts[2] = {"one two three", "four"};
    tcc_tensor input = {.dtype = TCC_STRING, .rank = 1, .shape = {2}, .data = (void *)texts};
    int64_t counts[4] = {9, 9, 9, 9};
    tcc_tensor outputs[2] = {{.dtype = TCC_STRING}, {.dtype = TCC_I64, .data = counts, .bytes = sizeof counts}};
    for (int round = 0; round < 3; round++) {
        CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_OK);
        CHECK(outputs[0].dtype == TCC_STRING && outputs[0].rank == 2);
        CHECK(outputs[0].shape[0] == 2 && outputs[0].shape[1] == 3);
        const char *const *words = outputs[0].data;
        const char *expected[6] = {"one", "two", "three", "four", "", ""};
        for (int i = 0; i < 6; i++) CHECK(strcmp(words[i], expected[i]) == 0);
        CHECK(outputs[1].data == counts && outputs[1].shape[0] == 2 && outputs[1].bytes == 16);
        CHECK(counts[0] == 3 && counts[1] == 1 && counts[2] == 9);
        outputs[1].bytes = sizeof counts;
    }
    outputs[1].bytes = 15;
    CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_ERROR_OUTPUT);
    outputs[1].data = NULL;
    texts[1] = "\xff";
    CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_ERROR_ARGUMENT);
    texts[1] = NULL;
    CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_ERROR_ARGUMENT);
    input.data = NULL;
    CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_ERROR_ARGUMENT);
    input.shape[0] = 0;
    CHECK(tcc_run(session, &input, 1, outputs, 2) == TCC_OK);
    CHECK(outputs[0].shape[0] == 0 && outputs[0].shape[1] == 0 && outputs[1].shape[0] == 0);
    tcc_session_free(session);
    tcc_executable_free(executable);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    split(argv[2]);
    CHECK(strlen(tcc_version()) > 0);
    CHECK(strcmp(tcc_dtype_name(TCC_F32), "f32") == 0 && strcmp(tcc_dtype_name(TCC_STRING), "string") == 0);
    CHECK(tcc_dtype_name(99) == NULL && tcc_dtype_name(-1) == NULL);

    tcc_executable *executable = NULL;
    CHECK(tcc_load("no such file", &executable) == TCC_ERROR_IO && executable == NULL);
    CHECK(strstr(tcc_last_error(), "no such file") != NULL);
    CHECK(tcc_load(NULL, &executable) == TCC_ERROR_ARGUMENT);
    CHECK(tcc_load(argv[1], NULL) == TCC_ERROR_ARGUMENT);
    CHECK(tcc_load_memory("nonsense", 8, &executable) == TCC_ERROR_FORMAT);
    CHECK(tcc_load_memory(NULL, 8, &executable) == TCC_ERROR_ARGUMENT);
    CHECK(tcc_load(argv[1], &executable) == TCC_OK);

    CHECK(strstr(tcc_describe(executable), "\"bias\"") != NULL && tcc_describe(NULL) == NULL);
    CHECK(tcc_input_count(executable) == 1 && tcc_output_count(executable) == 1 && tcc_input_count(NULL) == 0);
    tcc_tensor_info info;
    CHECK(tcc_input_info(executable, 0, &info) == TCC_OK);
    CHECK(strcmp(info.name, "x") == 0 && strcmp(info.shape_text, "[n, 5]") == 0);
    CHECK(info.dtype == TCC_F32 && info.rank == 2 && info.shape[0] == -1 && info.shape[1] == 5);
    CHECK(tcc_output_info(executable, 0, &info) == TCC_OK && strcmp(info.name, "y") == 0);
    CHECK(tcc_output_info(executable, 1, &info) == TCC_ERROR_ARGUMENT);

    tcc_session *session = NULL;
    CHECK(tcc_session_create(NULL, 1, &session) == TCC_ERROR_ARGUMENT);
    CHECK(tcc_session_create(executable, 100000, &session) == TCC_ERROR_MEMORY && session == NULL);
    CHECK(tcc_session_create(executable, 2, &session) == TCC_OK);
    /* The session keeps the program alive. */
    tcc_executable_free(executable);
    tcc_executable_free(NULL);

    float own_memory[100];
    for (int64_t n = 0; n < 8; n++) {
        run(session, n, NULL, 0);
        run(session, n, own_memory, sizeof own_memory);
    }

    float x[10] = {0};
    tcc_tensor input = {.dtype = TCC_F32, .rank = 2, .shape = {2, 5}, .data = x, .bytes = sizeof x};
    tcc_tensor output = {.dtype = TCC_F32, .data = own_memory, .bytes = 4};
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_OUTPUT);
    CHECK(strstr(tcc_last_error(), "`y`") != NULL);
    CHECK(tcc_run(session, &input, 0, &output, 1) == TCC_ERROR_INPUT);
    CHECK(tcc_run(session, &input, 1, &output, 0) == TCC_ERROR_OUTPUT);
    CHECK(tcc_run(session, NULL, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    CHECK(tcc_run(NULL, &input, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    output.data = NULL;
    input.bytes = 39;
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    input.bytes = sizeof x;
    input.shape[1] = 2;
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_INPUT);
    CHECK(strstr(tcc_last_error(), "`x`") != NULL);
    input.shape[1] = -5;
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    input.shape[1] = 5;
    input.rank = 17;
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    input.rank = 2;
    input.dtype = 99;
    CHECK(tcc_run(session, &input, 1, &output, 1) == TCC_ERROR_ARGUMENT);
    tcc_session_free(session);
    tcc_session_free(NULL);

    /* The same from memory. */
    FILE *file = fopen(argv[1], "rb");
    CHECK(file != NULL);
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(size);
    CHECK(fread(bytes, 1, size, file) == size);
    fclose(file);
    CHECK(tcc_load_memory(bytes, size, &executable) == TCC_OK);
    CHECK(tcc_session_create(executable, 1, &session) == TCC_OK);
    run(session, 3, NULL, 0);
    tcc_session_free(session);
    tcc_executable_free(executable);
    bytes[size / 2] ^= 1;
    CHECK(tcc_load_memory(bytes, size - 1, &executable) == TCC_ERROR_FORMAT);
    free(bytes);

    puts("all checks passed");
    return 0;
}
