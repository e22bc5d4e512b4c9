#pragma once
// SPDX-License-Identifier: Apache-2.0
#include <kvist/policy/policy.hpp>
#include <kvist/policy/state_fields.hpp>

#include <memory>
#include <utility>

namespace kvist::inline KVIST_ABI {

/// A policy chosen at run time: the functions of Policy over AnyLayer views, at one virtual call per layer. Copies share
/// the policy, which is immutable; each sequence has a State of its own, cloned only by clone().
class AnyPolicy {
  struct StateBase {
    virtual ~StateBase() = default;
    virtual std::unique_ptr<StateBase> clone() const = 0;
  };

 public:
  /// Records of one sequence, of the policy that started it.
  class State {
   public:
    State() = default;
    State clone() const { return State(p_ ? p_->clone() : nullptr); }
    explicit operator bool() const { return p_ != nullptr; }

   private:
    friend class AnyPolicy;
    explicit State(std::unique_ptr<StateBase> p) : p_(std::move(p)) {}
    std::unique_ptr<StateBase> p_;
  };

  template <class P>
  requires(!std::same_as<P, AnyPolicy>) AnyPolicy(P policy)
      : p_(std::make_shared<const Model<P>>(std::move(policy))) {}

  /// The settings of the policy inside; default ones where it has none.
  PolicySettings settings() const { return p_->settings(); }
  /// The same policy with other settings; states of this one are not states of that. A policy without settings stays as it
  /// is.
  AnyPolicy with(const PolicySettings& settings) const { return p_->with(settings); }

  Result<State> start(const Shape& shape) const { return p_->start(shape); }
  Wants wants() const { return p_->wants(); }
  bool due(const Clock& now) const { return p_->due(now); }
  unsigned makes() const { return p_->makes(); }
  bool compact() const { return p_->compact(); }
  bool in_order() const { return p_->in_order(); }
  bool free_size() const { return p_->free_size(); }
  /// Room for the records of n entries a head.
  void reserve(State& st, Index n) const { p_->reserve(*st.p_, n); }
  Status observe(const LayerCall<AnyLayer>& call, State& st) const { return p_->observe(call, *st.p_); }
  Status plan(const LayerCall<AnyLayer>& call, State& st, std::vector<Plan>& out) const {
    return p_->plan(call, *st.p_, out);
  }
  void applied(const Plan& plan, State& st) const { p_->applied(plan, *st.p_); }
  void truncate(State& st, int layer, int head, Index n, Pos pos) const {
    p_->truncate(*st.p_, layer, head, n, pos);
  }
  /// Scores of one head's entries as the last plan made them, for reports; valid until the next call.
  std::span<const float> scores(const State& st, int layer, int head) const {
    return p_->scores(*st.p_, layer, head);
  }
  /// Walks over a sequence's records, for snapshots (policy/state_fields.hpp).
  template <class V, class St>
  void fields(V& v, St& st, std::span<const Index> rows) const {
    p_->fields(v, *st.p_, rows);
  }

 private:
  struct Base {
    virtual ~Base() = default;
    virtual void fields(FieldWriter&, const StateBase&, std::span<const Index>) const = 0;
    virtual void fields(FieldReader&, StateBase&, std::span<const Index>) const = 0;
    virtual PolicySettings settings() const = 0;
    virtual AnyPolicy with(const PolicySettings&) const = 0;
    virtual Result<State> start(const Shape&) const = 0;
    virtual Wants wants() const = 0;
    virtual bool due(const Clock&) const = 0;
    virtual unsigned makes() const = 0;
    virtual bool compact() const = 0;
    virtual bool in_order() const = 0;
    virtual bool free_size() const = 0;
    virtual void reserve(StateBase&, Index) const = 0;
    virtual Status observe(const LayerCall<AnyLayer>&, StateBase&) const = 0;
    virtual Status plan(const LayerCall<AnyLayer>&, StateBase&, std::vector<Plan>&) const = 0;
    virtual void applied(const Plan&, StateBase&) const = 0;
    virtual void truncate(StateBase&, int, int, Index, Pos) const = 0;
    virtual std::span<const float> scores(const StateBase&, int, int) const = 0;
  };
  template <class P>
  struct Model final : Base {
    struct Held final : StateBase {
      typename P::State state;
      std::unique_ptr<StateBase> clone() const override { return std::make_unique<Held>(*this); }
    };
    P policy;
    explicit Model(P p) : policy(std::move(p)) {}

    PolicySettings settings() const override {
      if constexpr (requires { policy.settings; }) return policy.settings;
      else return {};
    }
    AnyPolicy with(const PolicySettings& settings) const override {
      P copy = policy;
      if constexpr (requires { copy.settings; }) copy.settings = settings;
      return AnyPolicy(std::move(copy));
    }
    static typename P::State& held(StateBase& st) { return static_cast<Held&>(st).state; }
    void fields(FieldWriter& v, const StateBase& st, std::span<const Index> rows) const override {
      state_fields(v, policy, static_cast<const Held&>(st).state, rows);
    }
    void fields(FieldReader& v, StateBase& st, std::span<const Index> rows) const override {
      state_fields(v, policy, held(st), rows);
    }
    Result<State> start(const Shape& shape) const override {
      auto made = policy.start(shape);
      if (!made) return made.error();
      auto held = std::make_unique<Held>();
      held->state = std::move(*made);
      return State(std::move(held));
    }
    Wants wants() const override { return policy.wants(); }
    bool due(const Clock& now) const override { return policy.due(now); }
    unsigned makes() const override { return policy.makes(); }
    bool compact() const override { return P::compact(); }
    bool in_order() const override { return P::in_order(); }
    bool free_size() const override {
      if constexpr (requires { policy.free_size(); }) return policy.free_size();
      else return false;
    }
    void reserve(StateBase& st, Index n) const override {
      if constexpr (requires { policy.reserve(held(st), n); }) policy.reserve(held(st), n);
    }
    Status observe(const LayerCall<AnyLayer>& call, StateBase& st) const override {
      return policy.observe(call, held(st));
    }
    Status plan(const LayerCall<AnyLayer>& call, StateBase& st, std::vector<Plan>& out) const override {
      return policy.plan(call, held(st), out);
    }
    void applied(const Plan& plan, StateBase& st) const override { policy.applied(plan, held(st)); }
    void truncate(StateBase& st, int layer, int head, Index n, Pos pos) const override {
      policy.truncate(held(st), layer, head, n, pos);
    }
    std::span<const float> scores(const StateBase& st, int layer, int head) const override {
      return static_cast<const Held&>(st).state.layers[std::size_t(layer)].heads[std::size_t(head)].scores;
    }
  };
  std::shared_ptr<const Base> p_;
};

}  // namespace kvist::inline KVIST_ABI
