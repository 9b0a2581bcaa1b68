/* tcc.h - runs programs compiled by tcc.
 *
 * A program is loaded once and shared by any number of sessions, also from several threads. A session is used by one
 * thread at a time; it owns the memory of a run and its own threads.
 *
 * Every function that can fail returns a status; tcc_last_error() has the message. No function unwinds or exits.
 * Pointers to structures and strings that functions return stay valid until the object they came from is freed,
 * unless stated otherwise.
 */
#ifndef TCC_H
#define TCC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TCC_MAX_RANK 16

/* What a function reports. */
typedef enum tcc_status {
    TCC_OK = 0,
    TCC_ERROR_ARGUMENT = 1, /* an argument is null or out of range */
    TCC_ERROR_IO = 2,       /* a file cannot be read */
    TCC_ERROR_FORMAT = 3,   /* not a bundle, damaged, or of another version */
    TCC_ERROR_MACHINE = 4,  /* compiled for another machine */
    TCC_ERROR_INPUT = 5,    /* an input has the wrong type or shape */
    TCC_ERROR_OUTPUT = 6,   /* an output buffer is too small or of another type */
    TCC_ERROR_MEMORY = 7,   /* memory or threads cannot be had */
    TCC_ERROR_RUN = 8,      /* the program failed while it ran */
    TCC_ERROR_INTERNAL = 9  /* a fault in tcc itself */
} tcc_status;

/* Element types. Types below 8 bits are packed, the first element in the lowest bits. */
typedef enum tcc_dtype {
    TCC_F32 = 0,
    TCC_F64 = 1,
    TCC_F16 = 2,
    TCC_BF16 = 3,
    TCC_F8E4M3FN = 4,
    TCC_F8E4M3FNUZ = 5,
    TCC_F8E5M2 = 6,
    TCC_F8E5M2FNUZ = 7,
    TCC_I8 = 8,
    TCC_I16 = 9,
    TCC_I32 = 10,
    TCC_I64 = 11,
    TCC_U8 = 12,
    TCC_U16 = 13,
    TCC_U32 = 14,
    TCC_U64 = 15,
    TCC_BOOL = 16,
    TCC_I4 = 17,
    TCC_U4 = 18,
    TCC_I2 = 19,
    TCC_U2 = 20,
    TCC_COMPLEX64 = 21,
    TCC_COMPLEX128 = 22,
    TCC_STRING = 23
} tcc_dtype;

/* A dense tensor in row-major order.
 *
 * data holds the elements; for TCC_STRING it is an array of pointers to zero-terminated UTF-8. bytes is the size of
 * the memory at data; for strings it is not used. */
typedef struct tcc_tensor {
    int32_t dtype; /* a tcc_dtype */
    int32_t rank;
    int64_t shape[TCC_MAX_RANK];
    void *data;
    size_t bytes;
} tcc_tensor;

/* What is known of an input or output before a run. */
typedef struct tcc_tensor_info {
    const char *name;
    const char *shape_text; /* such as "[batch, 3, 224, 224]" */
    int32_t dtype;          /* a tcc_dtype */
    int32_t rank;
    int64_t shape[TCC_MAX_RANK]; /* -1 where the dimension is not constant */
} tcc_tensor_info;

typedef struct tcc_executable tcc_executable;
typedef struct tcc_session tcc_session;

/* Version of the runtime, such as "0.1.0". */
const char *tcc_version(void);

/* Message of the last failure on this thread, empty if there was none; valid until the next call on this thread. */
const char *tcc_last_error(void);

/* Name of an element type, null for an unknown one. */
const char *tcc_dtype_name(int32_t dtype);

/* Loads a bundle. The file must stay as it is until the program and its sessions are freed. */
tcc_status tcc_load(const char *path, tcc_executable **executable);

/* Loads the entry of this name of a bundle; tcc_load takes the first. Entries of one file share their weights. */
tcc_status tcc_load_entry(const char *path, const char *entry, tcc_executable **executable);

/* Loads a bundle from memory, which must stay as it is until the program and its sessions are freed. */
tcc_status tcc_load_memory(const void *data, size_t bytes, tcc_executable **executable);

/* A program that is linked into this one: what `tcc compile --emit staticlib` writes. Its header declares it. */
typedef struct tcc_linked_program tcc_linked_program;

/* Makes a linked program ready to run. Nothing is read from files. */
tcc_status tcc_load_linked(const tcc_linked_program *program, tcc_executable **executable);

/* Frees a program; its sessions stay usable. Null is allowed. */
void tcc_executable_free(tcc_executable *executable);

/* The program as JSON: name, producer, inputs, outputs, symbols. Null when executable is null. */
const char *tcc_describe(const tcc_executable *executable);

size_t tcc_input_count(const tcc_executable *executable);
size_t tcc_output_count(const tcc_executable *executable);
tcc_status tcc_input_info(const tcc_executable *executable, size_t index, tcc_tensor_info *info);
tcc_status tcc_output_info(const tcc_executable *executable, size_t index, tcc_tensor_info *info);

/* Tensors that keep their contents from run to run, such as the caches of a language model, zero at first. Programs that
   name the same one share it. Symbols of their shapes, such as kv_slots, get their values here. */
typedef struct tcc_state tcc_state;

tcc_status tcc_state_create(const tcc_executable *const *executables, size_t executable_count,
                            const char *const *names, const int64_t *values, size_t symbol_count,
                            tcc_state **state);

/* Bytes that a state takes; 0 when it is null. */
uint64_t tcc_state_bytes(const tcc_state *state);

/* Sets a state to zero, as it was at first. */
tcc_status tcc_state_reset(const tcc_state *state);

/* Frees a state; its sessions stay usable. Null is allowed. */
void tcc_state_free(tcc_state *state);

/* As tcc_session_create, on a state that other sessions may use too, one run at a time. */
tcc_status tcc_session_create_on(const tcc_executable *executable, const tcc_state *state, size_t threads,
                                 tcc_session **session);

/* Makes a session with this many threads, the calling one included; 0 means one for each CPU. */
tcc_status tcc_session_create(const tcc_executable *executable, size_t threads, tcc_session **session);

/* Frees a session and the output memory that it owns. Null is allowed. */
void tcc_session_free(tcc_session *session);

/* Runs the program.
 *
 * For each output either data is null, and the session sets it to memory of its own that is valid until the next run
 * or until the session is freed; or data and bytes give memory of the caller that is large enough, which must not
 * overlap any input. In both cases dtype, rank, shape and bytes are set to those of the output. When the run fails
 * the outputs stay as they were, except for the contents of the caller's memory. */
tcc_status tcc_run(tcc_session *session, const tcc_tensor *inputs, size_t input_count, tcc_tensor *outputs,
                   size_t output_count);

#ifdef __cplusplus
}
#endif

#endif
