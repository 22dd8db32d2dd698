// Options of the heap, read by jemalloc before main(): pages go back to the kernel from a thread of
// the heap's own, not from whichever call happens to free memory (docs/decisions/0011).
extern "C" {
extern const char* const malloc_conf;
const char* const malloc_conf = "background_thread:true";
}
