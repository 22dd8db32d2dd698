#pragma once
// What the Request-URI and the Route of a request say to us (RFC 3261 16.4, 16.6 steps 6 and 7,
// 16.12), and our own Record-Route. Pure functions.

#include <string>
#include <string_view>
#include <vector>

#include "control/sip/message.h"
#include "control/sip/transport.h"
#include "home/dialog_token.h"
#include "home/domain.h"

namespace gmgate::home {

struct Routing {
    std::string request_uri;          // the target, also behind a strict router
    std::vector<std::string> routes;  // values behind our own, as they stand
    bool ours_first = false;          // the way led over us: by Service-Route or Record-Route
    bool recorded = false;            // ... by our Record-Route of this very dialog

    // Of the request as it goes on. A next hop without ;lr gets its own URI as Request-URI, and
    // ours as its last Route.
    [[nodiscard]] std::string next_request_uri() const;
    [[nodiscard]] std::string next_routes() const;  // joined by ", "; empty: no Route

  private:
    [[nodiscard]] bool strict_next() const;
};

[[nodiscard]] Routing read_routing(const sip::Message& request, const Domain& domain,
                                   const DialogTokens& tokens);

// A request of our own along a route set as it was stored (RFC 3261 12.2.1.1). `route`: values
// joined by ", ", or empty.
[[nodiscard]] Routing along(std::string_view route, std::string_view target);

// A To tag: the request belongs to a dialog.
[[nodiscard]] bool in_dialog(const sip::Message& request);
// Methods whose 2xx makes a dialog (RFC 3261, 3265, 3515).
[[nodiscard]] bool makes_dialog(std::string_view method);

// Our entry, or two where the request changes address family or transport on its way (RFC 5658):
// the one towards the callee on top. `user`: its token.
[[nodiscard]] std::string record_route(std::string_view user, const sip::Flow& arrived,
                                       const sip::Flow& leaving, const Domain& domain);

// Values of all lines of a header, unfolded, joined by ", ".
[[nodiscard]] std::string joined(const sip::Message& message, sip::HeaderId id);

}  // namespace gmgate::home
