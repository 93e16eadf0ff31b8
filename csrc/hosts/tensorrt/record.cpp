#include "hosts/tensorrt/record.h"

#include <cstdint>
#include <cstring>

// A word that names the format and its version, the operator's name, then every attribute in order: int64,
// float32 or text. Texts have their length before them, a byte. Numbers are little-endian, as all machines
// that TensorRT runs on are.
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "records are little-endian"
#endif

namespace ek {
namespace hosts {
namespace {

constexpr char kMagic[] = {'e', 'd', 'g', 'e', 'k', 'i', 't', 1};

template <class T>
void write(std::string& to, const T& value) {
  to.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void write_text(std::string& to, const std::string& text) {
  require(text.size() <= UINT8_MAX, "a text of more than 255 bytes");
  to.push_back(static_cast<char>(text.size()));
  to.append(text);
}

class Reader {
 public:
  Reader(const void* data, size_t size) : at_(static_cast<const char*>(data)), left_(data ? size : 0) {}

  void take(void* to, size_t size) {
    require(size <= left_, "the record ends too early");
    std::memcpy(to, at_, size);
    at_ += size;
    left_ -= size;
  }
  template <class T>
  T number() {
    T value;
    take(&value, sizeof value);
    return value;
  }
  std::string text() {
    std::string value(number<uint8_t>(), '\0');
    take(&value[0], value.size());
    return value;
  }
  bool at_end() const { return left_ == 0; }

 private:
  const char* at_;
  size_t left_;
};

}  // namespace

std::string write_record(const Operator& op, const std::vector<Value>& values) {
  std::string bytes(kMagic, sizeof kMagic);
  write_text(bytes, op.name);
  for (size_t i = 0; i < op.attributes.size(); ++i) {
    switch (op.attributes[i].kind) {
      case Kind::kInt:
        write(bytes, values[i].i);
        break;
      case Kind::kFloat:
        write(bytes, values[i].f);
        break;
      case Kind::kString:
        write_text(bytes, values[i].s);
    }
  }
  return bytes;
}

std::vector<Value> read_record(const Operator& op, const void* data, size_t size) {
  Reader reader(data, size);
  char magic[sizeof kMagic];
  reader.take(magic, sizeof magic);
  require(std::memcmp(magic, kMagic, sizeof kMagic) == 0, "the record is not one of edgekit's, version 1");
  require(reader.text() == op.name, std::string("the record is of another operator than ") + op.name);
  std::vector<Value> values(op.attributes.size());
  for (size_t i = 0; i < values.size(); ++i) {
    switch (op.attributes[i].kind) {
      case Kind::kInt:
        values[i].i = reader.number<int64_t>();
        break;
      case Kind::kFloat:
        values[i].f = reader.number<float>();
        break;
      case Kind::kString:
        values[i].s = reader.text();
    }
  }
  require(reader.at_end(), "the record is too long");
  check_values(op, values.data());
  return values;
}

}  // namespace hosts
}  // namespace ek
