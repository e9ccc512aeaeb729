NO_RETURN = frozenset(
    (
        "__stack_chk_fail",
        "panic",
        "nmi_panic",
        "do_exit",
        "make_task_dead",
        "do_group_exit",
        "__fortify_panic",
        "fortify_panic",
        "rewind_stack_and_make_dead",
        "rewind_stack_do_exit",
        "__ubsan_handle_builtin_unreachable",
    )
)
