/* Two models in one program: one of constant shapes through its typed function, one of any shape through tcc_run.
 *
 *   tcc compile perceptron.tir --emit staticlib -o libperceptron.a
 *   tcc compile likelihood.tir --emit staticlib -o liblikelihood.a
 *   cc example.c libperceptron.a liblikelihood.a -lm -lpthread -o example
 */
#include "likelihood.h"
#include "perceptron.h"

#include <stdio.h>

static int failed(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, tcc_last_error());
    return 1;
}

static void print(const char *name, const float *values, size_t count)
{
    size_t i;
    printf("%s", name);
    for (i = 0; i < count; i++) printf(" %.9g", values[i]);
    printf("\n");
}

int main(void)
{
    const float features[4] = {0.5f, -1.0f, 0.25f, 2.0f};
    float scores[3];
    tcc_session *perceptron = NULL, *likelihood = NULL;
    tcc_tensor input = {0}, output = {0};

    if (perceptron_create(1, &perceptron) != TCC_OK) return failed("perceptron_create");
    if (perceptron_run(perceptron, features, scores) != TCC_OK) return failed("perceptron_run");
    print("scores", scores, perceptron_scores_bytes / sizeof(float));

    if (likelihood_create(2, &likelihood) != TCC_OK) return failed("likelihood_create");
    input.dtype = TCC_F32;
    input.rank = 2;
    input.shape[0] = 1;
    input.shape[1] = 3;
    input.data = scores;
    input.bytes = sizeof scores;
    /* The session has the memory of an output without data. */
    if (tcc_run(likelihood, &input, 1, &output, 1) != TCC_OK) return failed("tcc_run");
    print("probabilities", output.data, output.bytes / sizeof(float));

    perceptron_free(perceptron);
    likelihood_free(likelihood);
    return 0;
}
