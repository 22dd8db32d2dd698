#include "dataplane/core/esp.h"

namespace gmgate::dataplane {

EspGeometries esp_geometries() {
    EspGeometries all{};
    for (const sa::Suite suite : sa::all_suites) {
        EspGeometry& g = all[sa::suite_index(suite)];
        g.iv = static_cast<std::uint8_t>(sa::iv_size(suite));
        g.icv = static_cast<std::uint8_t>(sa::icv_size(suite));
        g.block = static_cast<std::uint8_t>(sa::block_size(suite));
    }
    return all;
}

}  // namespace gmgate::dataplane
