/* The x86-64 system call instruction, as data: System V ABI, AMD64 supplement, A.2.1. */
#define SYSCALL_INSTRUCTION "syscall"
#define SYSCALL_NUMBER_REGISTER "rax"
#define SYSCALL_ARGUMENT_0 "rdi"
#define SYSCALL_ARGUMENT_1 "rsi"
#define SYSCALL_ARGUMENT_2 "rdx"
#define SYSCALL_ARGUMENT_3 "r10"
#define SYSCALL_ARGUMENT_4 "r8"
#define SYSCALL_ARGUMENT_5 "r9"
#define SYSCALL_CLOBBERS "rcx", "r11", "memory"
/* The result comes back where the number went in. */
#define SYSCALL_RESULT(number, argument_0) (number)
