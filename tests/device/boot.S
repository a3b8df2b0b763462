/* boot.S - from a multiboot loader to C in 64-bit mode with AVX-512 switched on. First 4 GiB mapped one to one. */
    .set MAGIC, 0x1BADB002
    .set FLAGS, 3                      /* modules on pages, memory map wanted */
    .section .multiboot, "a"
    .align 4
    .long MAGIC, FLAGS, -(MAGIC + FLAGS)

    .bss
    .align 4096
pml4: .skip 4096
pdpt: .skip 4096
pds:  .skip 4 * 4096
stack: .skip 1 << 20
stack_top:

    .text
    .code32
    .globl start
start:
    cli
    movl $stack_top, %esp
    movl %ebx, %ebp                    /* multiboot information */
    movl $pdpt, %eax
    orl $3, %eax
    movl %eax, pml4
    xorl %ecx, %ecx
1:  movl %ecx, %eax                    /* four page directories */
    shll $12, %eax
    addl $pds, %eax
    orl $3, %eax
    movl %eax, pdpt(,%ecx,8)
    incl %ecx
    cmpl $4, %ecx
    jne 1b
    xorl %ecx, %ecx
2:  movl %ecx, %eax                    /* 2048 pages of 2 MiB */
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, pds(,%ecx,8)
    incl %ecx
    cmpl $2048, %ecx
    jne 2b
    movl %cr4, %eax
    orl $0x40620, %eax                 /* PAE, OSFXSR, OSXMMEXCPT, OSXSAVE */
    movl %eax, %cr4
    movl $pml4, %eax
    movl %eax, %cr3
    movl $0xC0000080, %ecx
    rdmsr
    orl $0x100, %eax                   /* long mode */
    wrmsr
    movl %cr0, %eax
    andl $~0xC, %eax                   /* no emulation, no task switched */
    orl $0x80000002, %eax              /* paging, monitor coprocessor */
    movl %eax, %cr0
    lgdt gdt_pointer
    ljmp $8, $long_mode
    .code64
long_mode:
    movw $16, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    xorl %ecx, %ecx
    xorl %edx, %edx
    movl $0xE7, %eax                   /* x87, SSE, AVX, three parts of AVX-512 */
    xsetbv
    movl %ebp, %edi
    movq $stack_top, %rsp
    call bare_main
    cli
3:  hlt
    jmp 3b

    .align 16
gdt: .quad 0, 0x00AF9A000000FFFF, 0x00CF92000000FFFF
gdt_pointer: .word 23
    .long gdt
    .section .note.GNU-stack, "", @progbits
