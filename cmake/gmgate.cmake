# Helpers of the build: warnings, sanitizers, the libraries from Debian, one function per kind of target.
find_package(PkgConfig REQUIRED)
find_package(OpenSSL REQUIRED)
find_package(Threads REQUIRED)
find_package(fmt REQUIRED)
find_package(spdlog REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(CLI11 REQUIRED)
find_package(prometheus-cpp CONFIG REQUIRED)
pkg_check_modules(UV REQUIRED IMPORTED_TARGET libuv)
pkg_check_modules(YAML REQUIRED IMPORTED_TARGET yaml-cpp)
pkg_check_modules(OSIP REQUIRED IMPORTED_TARGET libosip2)
pkg_check_modules(PUGIXML REQUIRED IMPORTED_TARGET pugixml)
pkg_check_modules(CARES REQUIRED IMPORTED_TARGET libcares)
pkg_check_modules(MNL REQUIRED IMPORTED_TARGET libmnl)
pkg_check_modules(DPDK REQUIRED libdpdk)
pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)

set(CMAKE_CXX_STANDARD 23)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)

add_library(gmgate_options INTERFACE)
target_compile_options(gmgate_options INTERFACE
    -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fno-omit-frame-pointer)
target_include_directories(gmgate_options INTERFACE ${CMAKE_SOURCE_DIR})
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    # g++ 12's own templates use what they have deprecated (std::stable_sort); of our code g++ itself refuses it.
    target_compile_options(gmgate_options INTERFACE -Wno-deprecated-declarations)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    # Hardening that costs nothing measurable; the fast path has its own flags.
    target_compile_options(gmgate_options INTERFACE -fstack-protector-strong)
    # Names are bound at the start: a late binding writes all vector registers, and what was copied last, to the stack (S1).
    target_link_options(gmgate_options INTERFACE -Wl,-z,relro,-z,now)
endif()
if(GMGATE_SANITIZE STREQUAL "address")
    target_compile_options(gmgate_options INTERFACE -O1 -fsanitize=address,undefined -fno-sanitize-recover=all)
    target_link_options(gmgate_options INTERFACE -fsanitize=address,undefined)
elseif(GMGATE_SANITIZE STREQUAL "thread")
    target_compile_options(gmgate_options INTERFACE -O1 -fsanitize=thread)
    target_link_options(gmgate_options INTERFACE -fsanitize=thread)
    # GCC warns that fences are not instrumented; what uses them is tested with atomics besides.
    target_compile_options(gmgate_options INTERFACE -Wno-tsan)
elseif(GMGATE_SANITIZE STREQUAL "fuzz")
    target_compile_options(gmgate_options INTERFACE -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all)
    target_link_options(gmgate_options INTERFACE -fsanitize=address,undefined)
endif()
# The tests' own sources are the larger half of the compiling: the code under test is optimized, its tests need little of it.
# Line numbers are all the debug info they need. What g++ takes for uninitialized depends on how much it inlines.
if(CMAKE_BUILD_TYPE STREQUAL "RelWithDebInfo")
    set(gmgate_test_options -O1 -g1 -Wno-error=maybe-uninitialized)
endif()

# The gateway's heap (docs/decisions/0011): freeing a million objects must not stop the event loop. Sanitizers bring their own.
add_library(gmgate_heap INTERFACE)
if(NOT GMGATE_SANITIZE)
    target_link_libraries(gmgate_heap INTERFACE PkgConfig::JEMALLOC)
    target_link_options(gmgate_heap INTERFACE -Wl,--no-as-needed)
    target_sources(gmgate_heap INTERFACE ${CMAKE_SOURCE_DIR}/base/heap/malloc_conf.cpp)
endif()

# DPDK: headers as system headers (they do not survive -Wconversion). pkg-config forces -march=corei7; what DPDK's inline
# code needs of it is -mssse3 and up, so it stays. The vdev bus is missing from pkg-config's list of libraries.
add_library(gmgate_dpdk_library INTERFACE)
set(gmgate_dpdk_includes ${DPDK_INCLUDE_DIRS})
target_include_directories(gmgate_dpdk_library SYSTEM INTERFACE ${gmgate_dpdk_includes})
target_compile_options(gmgate_dpdk_library INTERFACE -include rte_config.h -march=corei7)
target_link_libraries(gmgate_dpdk_library INTERFACE
    rte_eal rte_ethdev rte_mbuf rte_mempool rte_ring rte_rcu rte_ip_frag rte_hash rte_net rte_kvargs rte_telemetry
    rte_mempool_ring rte_bus_vdev rte_net_af_packet rte_net_tap rte_net_ring rte_net_pcap numa)
target_link_options(gmgate_dpdk_library INTERFACE -Wl,--no-as-needed)

# gmgate_library(NAME [LINK libs…] [PRIVATE libs…]): a static library of all .cpp files of the current folder.
function(gmgate_library name)
    cmake_parse_arguments(arg "" "" "LINK;PRIVATE" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cpp)
    list(FILTER sources EXCLUDE REGEX "/main\\.cpp$")
    if(sources)
        add_library(${name} STATIC ${sources})
        target_link_libraries(${name} PUBLIC gmgate_options ${arg_LINK} PRIVATE ${arg_PRIVATE})
    else()
        add_library(${name} INTERFACE)
        target_link_libraries(${name} INTERFACE gmgate_options ${arg_LINK})
    endif()
endfunction()

# gmgate_program(NAME SOURCE file LINK libs…): one program, in build/<preset>/bin.
function(gmgate_program name)
    cmake_parse_arguments(arg "" "SOURCE" "LINK" ${ARGN})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SOURCE})
        return()
    endif()
    add_executable(${name} ${arg_SOURCE})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
    target_compile_definitions(${name} PRIVATE GMGATE_VERSION="${PROJECT_VERSION}")
    target_link_libraries(${name} PRIVATE gmgate_options ${arg_LINK})
endfunction()

# gmgate_test(NAME [LONG] DIR folder LINK libs…): one gtest binary of all *_test.cpp (and helper .cpp) of a folder. LONG: it is optimized
# as the libraries are, because it runs long.
function(gmgate_test name)
    cmake_parse_arguments(arg "LONG" "DIR" "LINK;LABELS" ${ARGN})
    file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${arg_DIR}/*.cpp)
    if(NOT sources)
        return()
    endif()
    add_executable(${name} ${sources})
    if(NOT arg_LONG)
        # On the sources, for only their options come after those of the libraries.
        set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS ${gmgate_test_options})
    endif()
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
    target_link_libraries(${name} PRIVATE gmgate_options ${arg_LINK} GTest::gmock GTest::gtest_main)
    target_compile_definitions(${name} PRIVATE
        GMGATE_SOURCE_DIR="${CMAKE_SOURCE_DIR}" GMGATE_TEST_DATA="${CMAKE_SOURCE_DIR}/tests/data"
        GMGATE_CORPORA="${CMAKE_SOURCE_DIR}/../shared/corpora")
    add_test(NAME ${name} COMMAND ${name})
    set_tests_properties(${name} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT 600)
endfunction()

# gmgate_bench(NAME SOURCE file LINK libs…): one Google Benchmark binary.
function(gmgate_bench name)
    cmake_parse_arguments(arg "" "SOURCE" "LINK" ${ARGN})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SOURCE})
        return()
    endif()
    add_executable(${name} ${arg_SOURCE})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
    target_link_libraries(${name} PRIVATE gmgate_options ${arg_LINK} benchmark::benchmark)
endfunction()

# gmgate_fuzzer(NAME SOURCE file LINK libs…): one libFuzzer binary; its corpus is tests/fuzz/corpus/<name>.
function(gmgate_fuzzer name)
    cmake_parse_arguments(arg "" "SOURCE" "LINK" ${ARGN})
    if(NOT EXISTS ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SOURCE})
        return()
    endif()
    add_executable(${name} ${arg_SOURCE})
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
    target_link_libraries(${name} PRIVATE gmgate_options ${arg_LINK})
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
endfunction()
