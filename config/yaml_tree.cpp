#include "config/yaml_tree.h"

#include <fmt/core.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <sstream>

namespace gmgate::config {

namespace {

// What the file may not contain; thrown through yaml-cpp's parser, caught below.
struct Refused {
    int line;
    std::string text;
};

int line_of(const YAML::Mark& mark) {
    return mark.line < 0 ? 0 : mark.line + 1;
}

class TreeBuilder final : public YAML::EventHandler {
  public:
    void OnDocumentStart(const YAML::Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
        refuse_anchor(mark, anchor);
        put({YamlNode::Kind::null, line_of(mark), {}, {}, {}});
    }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override {
        throw Refused{line_of(mark), "aliases (*name) are not used here; write the value out"};
    }
    void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  const std::string& value) override {
        refuse_anchor(mark, anchor);
        // "?": plain, "!": quoted; a quoted scalar is text too, even when it is empty.
        if (tag != "?" && tag != "!" && !tag.empty())
            throw Refused{line_of(mark), "tags (!name) are not used here; remove it"};
        put({YamlNode::Kind::scalar, line_of(mark), value, {}, {}});
    }
    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                         YAML::EmitterStyle::value) override {
        open(mark, anchor, YamlNode::Kind::list);
    }
    void OnSequenceEnd() override { close(); }
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                    YAML::EmitterStyle::value) override {
        open(mark, anchor, YamlNode::Kind::map);
    }
    void OnMapEnd() override { close(); }

    YamlNode take() { return std::move(root_); }

  private:
    struct Open {
        YamlNode node;
        std::optional<YamlNode> key;  // of a map, waiting for its value
    };

    static void refuse_anchor(const YAML::Mark& mark, YAML::anchor_t anchor) {
        if (anchor != 0)
            throw Refused{line_of(mark), "anchors (&name) are not used here; remove it"};
    }
    void open(const YAML::Mark& mark, YAML::anchor_t anchor, YamlNode::Kind kind) {
        refuse_anchor(mark, anchor);
        if (stack_.size() >= deepest_nesting)
            throw Refused{line_of(mark), "nested too deeply for a configuration"};
        stack_.push_back({{kind, line_of(mark), {}, {}, {}}, std::nullopt});
    }
    void close() {
        YamlNode done = std::move(stack_.back().node);
        stack_.pop_back();
        put(std::move(done));
    }
    void put(YamlNode node) {
        if (stack_.empty()) {
            root_ = std::move(node);
            return;
        }
        Open& top = stack_.back();
        if (top.node.kind == YamlNode::Kind::list) {
            top.node.items.push_back(std::move(node));
        } else if (!top.key) {
            top.key = std::move(node);
        } else {
            top.node.keys.push_back(std::move(*top.key));
            top.node.items.push_back(std::move(node));
            top.key.reset();
        }
    }

    std::vector<Open> stack_;
    YamlNode root_;
};

// yaml-cpp takes a tab for a blank in places and then reads a structure other than the one a person
// sees.
void find_tabs(std::string_view text, Problems& problems) {
    int line = 1;
    while (!text.empty()) {
        const std::size_t end = text.find('\n');
        const std::string_view row = text.substr(0, end);
        const std::size_t first = row.find_first_not_of(" \t\r");
        if (first != std::string_view::npos && row[first] != '#' &&
            row.substr(0, first).find('\t') != std::string_view::npos) {
            problems.add(line, "", "a tab indents this line; YAML wants blanks");
        }
        if (end == std::string_view::npos) break;
        text.remove_prefix(end + 1);
        ++line;
    }
}

// Counted from the start: the end of the text before a NUL would be taken for the end of the file.
void find_control_characters(std::string_view text, Problems& problems) {
    int line = 1;
    for (const char c : text) {
        if (c == '\n')
            ++line;
        else if (c == '\0' || (static_cast<unsigned char>(c) < 0x20 && c != '\t' && c != '\r')) {
            problems.add(
                line, "",
                fmt::format(
                    "octet 0x{:02x} does not belong in a text file; is this a configuration?",
                    static_cast<unsigned char>(c)));
            return;
        }
    }
}

}  // namespace

std::optional<YamlNode> parse_yaml(std::string_view text, Problems& problems) {
    if (text.size() > longest_document) {
        problems.add(
            0, "",
            fmt::format(
                "{} octets are more than a configuration has (limit {}); is this the right file?",
                text.size(), longest_document));
        return std::nullopt;
    }
    find_control_characters(text, problems);
    if (!problems.empty()) return std::nullopt;
    find_tabs(text, problems);
    if (!problems.empty()) return std::nullopt;
    try {
        std::istringstream in{std::string(text)};
        YAML::Parser parser(in);
        TreeBuilder tree;
        if (!parser.HandleNextDocument(tree)) return YamlNode{};
        TreeBuilder second;
        if (parser.HandleNextDocument(second)) {
            problems.add(second.take().line, "",
                         "a second document (---) begins here; a configuration is one");
            return std::nullopt;
        }
        return tree.take();
    } catch (const Refused& e) {
        problems.add(e.line, "", e.text);
    } catch (const YAML::Exception& e) {
        problems.add(
            line_of(e.mark), "",
            fmt::format("this is not YAML: {}; check indentation, colons, quotes and brackets",
                        e.msg));
    } catch (const std::exception& e) {
        problems.add(0, "", fmt::format("this is not YAML: {}", e.what()));
    }
    return std::nullopt;
}

}  // namespace gmgate::config
