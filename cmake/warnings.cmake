# Every target of ours is compiled with these; a warning is an error.
add_compile_options(-Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes
                    -Wpointer-arith -Wformat=2 -Wvla -fno-common -fstack-protector-strong)
if(ENVELOPE_WERROR)
  add_compile_options(-Werror)
endif()
# Error texts name a file of the project, not a place on the machine that built it.
add_compile_options(-ffile-prefix-map=${PROJECT_SOURCE_DIR}/=)
add_compile_definitions(_GNU_SOURCE)
if(ENVELOPE_SANITIZE)
  add_compile_options(-fsanitize=${ENVELOPE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ENVELOPE_SANITIZE})
else()
  # FORTIFY hides errors from the sanitizers, so the two exclude each other.
  add_compile_definitions($<$<NOT:$<CONFIG:Debug>>:_FORTIFY_SOURCE=2>)
  add_link_options(-Wl,-z,relro -Wl,-z,now)
endif()
