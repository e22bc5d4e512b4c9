#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/core/version.hpp>

#include <array>
#include <string_view>

namespace kvist::inline KVIST_ABI {
namespace tasks::detail {

// Words that are one token each (with the blank before them) in the vocabulary of SmolLM2.
inline constexpr std::array<std::string_view, 82> words{
    "apple",   "river",   "table",  "orange",  "garden", "window",  "bottle", "silver", "candle",   "basket",
    "bridge",  "button",  "camera", "carpet",  "castle", "cherry",  "circle", "copper", "cotton",   "curtain",
    "desert",  "dragon",  "engine", "feather", "finger", "forest",  "hammer", "helmet", "island",   "jacket",
    "kitchen", "ladder",  "lemon",  "letter",  "marble", "market",  "mirror", "monkey", "mountain", "needle",
    "ocean",   "orchard", "paper",  "pencil",  "pepper", "piano",   "pillow", "planet", "pocket",   "potato",
    "rabbit",  "ribbon",  "rocket", "saddle",  "sailor", "salmon",  "school", "shadow", "shirt",    "spider",
    "spoon",   "station", "stone",  "sugar",   "temple", "thunder", "tiger",  "tower",  "tractor",  "trumpet",
    "tunnel",  "turtle",  "valley", "velvet",  "violin", "wagon",   "walnut", "whale",  "wheel",    "winter",
    "yellow",  "zebra"};

inline constexpr std::array<std::string_view, 69> given_names{
    "Mary",   "John",   "Alice",   "Peter",   "Susan",     "David",   "Laura",  "Kevin",   "Sarah",
    "Brian",  "Emma",   "Oscar",   "Julia",   "Frank",     "Helen",   "Simon",  "Linda",   "Victor",
    "Diana",  "Martin", "Rachel",  "Bruce",   "Karen",     "Jason",   "Maria",  "Philip",  "Nancy",
    "Steven", "Clara",  "Henry",   "Grace",   "Daniel",    "Sophie",  "Walter", "Anna",    "Thomas",
    "Jane",   "Robert", "Lucy",    "George",  "Elizabeth", "Paul",    "Kate",   "Mark",    "Rose",
    "Adam",   "Eric",   "Leo",     "Tom",     "Emily",     "Jack",    "Lisa",   "Ben",     "Michelle",
    "Ryan",   "Amy",    "Jessica", "Alex",    "Carol",     "Matthew", "Samuel", "Patrick", "Anthony",
    "Andrew", "Joseph", "Edward",  "Charles", "Michael",   "William"};

inline constexpr std::array<std::string_view, 51> cities{
    "Paris",    "London",   "Berlin",    "Madrid",    "Rome",      "Vienna",    "Prague",    "Tokyo",
    "Moscow",   "Cairo",    "Boston",    "Chicago",   "Dallas",    "Denver",    "Seattle",   "Toronto",
    "Sydney",   "Dublin",   "Athens",    "Lisbon",    "Mumbai",    "Delhi",     "Beijing",   "Shanghai",
    "Houston",  "Miami",    "Oxford",    "Cambridge", "Venice",    "Florence",  "Munich",    "Hamburg",
    "Zurich",   "Geneva",   "Amsterdam", "Brussels",  "Stockholm", "Oslo",      "Helsinki",  "Warsaw",
    "Budapest", "Istanbul", "Jerusalem", "Baghdad",   "Montreal",  "Vancouver", "Melbourne", "Singapore",
    "Manila",   "Lima",     "Havana"};

}  // namespace tasks::detail
}  // namespace kvist::inline KVIST_ABI
