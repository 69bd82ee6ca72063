"""Models with their immutable versions, and dated prices."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.conf import settings
from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from llmops.base.admin import ReadOnlyInline, ServiceAdmin, admin_action
from llmops.base.admin_actions import ask
from llmops.base.form_fields import MomentField
from llmops.core.actors import Actor
from llmops.core.errors import UnprocessableEntity
from llmops.core.money import format_usd
from llmops.providers import services
from llmops.providers.admin.forms import CapabilitiesField, JsonObjectField, UsdField
from llmops.providers.catalogue import shipped
from llmops.providers.listing import ListedModel
from llmops.providers.models import Model, ModelConfig, ModelTrial, Price, Provider
from llmops.providers.previews import NewPrice, preview
from llmops.providers.rules import TOKEN_CLASSES, unit_of
from llmops.providers.selectors import unpriced_models
from llmops.providers.services.models import VERSION_FIELDS
from llmops.providers.services.trials import INPUT_TOKENS, OUTPUT_TOKENS


class VersionsInline(ReadOnlyInline):
    model = ModelConfig
    verbose_name_plural = "versions"
    fields = (
        "version",
        "upstream_model",
        "context_window",
        "max_output_tokens",
        "default_max_output_tokens",
        "parameters",
        "capabilities",
        "note",
        "created_by",
        "created_at",
    )
    readonly_fields = fields
    ordering = ("-version",)
    show_change_link = False


class PricesInline(ReadOnlyInline):
    model = Price
    verbose_name_plural = "prices, USD per million"
    fields = ("token_class", "usd", "effective_from", "source", "created_by")
    readonly_fields = fields
    ordering = ("token_class", "-effective_from")
    show_change_link = False

    @display(description="USD per million")
    def usd(self, price: Price) -> str:
        return format_usd(price.nano_per_million)


def _tokens(**kwargs: Any) -> forms.IntegerField:
    return forms.IntegerField(
        min_value=0, max_value=100_000_000, widget=UnfoldAdminIntegerFieldWidget(), **kwargs
    )


class ModelForm(forms.ModelForm):
    """A model as its current version has it; saving a change adds a version."""

    provider = forms.ModelChoiceField(
        queryset=Provider.objects.filter(archived_at=None), widget=UnfoldAdminSelectWidget
    )
    upstream_model = forms.CharField(
        max_length=120,
        widget=UnfoldAdminTextInputWidget(),
        label="Model at the provider",
        help_text="The pinned snapshot id, such as gpt-4o-2024-08-06.",
    )
    floats_reason = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        label="Why its name may float",
        help_text="Only for an alias without a date, whose meaning OpenAI or Azure may change.",
    )
    context_window = _tokens(help_text="Tokens, input and output together.")
    max_output_tokens = _tokens(label="Maximum output", help_text="Tokens; 0 for embeddings.")
    default_max_output_tokens = _tokens(
        label="Default output", help_text="Tokens that a call gets which names no limit."
    )
    parameters = JsonObjectField(
        label="Request defaults", help_text='JSON, such as {"temperature": 0}; a call may override them.'
    )
    capabilities = CapabilitiesField(initial=["chat", "stream"])
    note = forms.CharField(
        max_length=300,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="What this version changes, and why.",
    )

    load_prices = forms.BooleanField(
        required=False,
        initial=True,
        widget=UnfoldBooleanSwitchWidget(),
        label="Load prices",
        help_text="What the shipped price list knows of the model it is pinned to; other prices are added afterwards.",
    )

    class Meta:
        model = Model
        fields = ("slug",)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk and self.instance.current_id:
            self.fields.pop("load_prices", None)
        current = self.instance.current if self.instance.current_id else None
        if current is not None:
            for name in ("provider", *VERSION_FIELDS):
                if name in self.fields:
                    self.initial.setdefault(name, getattr(current, name))


class PriceForm(forms.Form):
    token_class = forms.ChoiceField(choices=TOKEN_CLASSES, widget=UnfoldAdminSelectWidget)
    usd_per_million = UsdField(label="USD per million")
    effective_from = MomentField(
        label="From (UTC)",
        required=False,
        help_text="Empty: from now on. Prices are never edited; a correction is a later one.",
    )
    source = forms.CharField(
        max_length=200,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        help_text="Where the price was read, and when.",
    )


class NewPriceForm(PriceForm, forms.ModelForm):
    model = forms.ModelChoiceField(queryset=Model.objects.all(), widget=UnfoldAdminSelectWidget)
    field_order = ("model", "token_class", "usd_per_million", "effective_from", "source")

    class Meta:
        model = Price
        fields = ("model", "token_class", "source")


def _add_price(actor: Actor, model: Model, data: dict[str, Any]) -> Price:
    return services.add_price(
        actor,
        model=model,
        token_class=data["token_class"],
        nano_per_million=data["usd_per_million"],
        effective_from=data["effective_from"],
        source=data["source"],
    )


class ListForm(forms.Form):
    provider = forms.ModelChoiceField(
        queryset=Provider.objects.filter(archived_at=None), widget=UnfoldAdminSelectWidget
    )
    search = forms.CharField(
        max_length=120,
        required=False,
        widget=UnfoldAdminTextInputWidget(),
        label="With this in its name",
        help_text="Empty: all of them.",
    )


#: Rows of a provider's list that are shown; a search narrows them.
MOST_LISTED = 300


def _listed_facts(actor: Actor, provider: Provider, search: str) -> dict[str, Any]:
    """What a provider lists, each with where it can be added and what it is here already."""
    listed = services.list_models(actor, provider=provider)
    wanted = [one for one in listed if search.strip().lower() in one.name.lower()][:MOST_LISTED]
    here: dict[str, list[tuple[str, str]]] = {}
    for row in ModelConfig.objects.filter(current_of__isnull=False, provider=provider).select_related(
        "model"
    ):
        address = reverse("admin:providers_model_change", args=[row.model_id])
        here.setdefault(row.upstream_model, []).append((row.model.slug, address))
    taken = set(Model.objects.values_list("slug", flat=True))
    return {
        "listed_of": provider.slug,
        "total": len(listed),
        "listed": [(one, _add_address(provider, one, taken), here.get(one.name, [])) for one in wanted],
    }


def _add_address(provider: Provider, listed: ListedModel, taken: set[str]) -> str:
    """The form of a new model with what is known of this one."""
    slug = re.sub(r"[^a-z0-9._-]+", "-", listed.name.lower()).strip("-._")[:63]
    if slug in taken:
        slug = f"{provider.slug}-{slug}"[:63]
    known: dict[str, object] = {"provider": provider.pk, "upstream_model": listed.name, "slug": slug}
    if listed.window is not None:
        known["context_window"] = listed.window
    if listed.output is not None:
        known |= {
            "max_output_tokens": listed.output,
            "default_max_output_tokens": min(listed.output, USUAL_OUTPUT),
        }
    return f"{reverse('admin:providers_model_add')}?{urlencode(known)}"


#: Tokens that a call gets which names no limit, where nothing else is said.
USUAL_OUTPUT = 4_096


def _trial_facts(admin_: Any, request: HttpRequest, obj: Model) -> dict[str, Any]:
    prices = services.prices_now(obj)
    return {
        "worst_nano": prices.worst_cost(INPUT_TOKENS, OUTPUT_TOKENS) if prices else None,
        "limit_nano": settings.MODEL_TRIALS_NANO_A_DAY,
        "trials": list(obj.trials.all()[:5]),
    }


class PricedFilter(admin.SimpleListFilter):
    title = "price"
    parameter_name = "price"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("none", "Without a price")]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        return queryset.filter(pk__in=unpriced_models().values("pk")) if self.value() == "none" else queryset


def _new_prices(planned: list[services.PlannedPrice]) -> list[NewPrice]:
    return [NewPrice(one.model, one.token_class, one.nano_per_million, one.effective_from) for one in planned]


def _planned_facts(admin_: Any, request: HttpRequest, obj: Model) -> dict[str, Any]:
    price_list = shipped()
    planned = services.plan_prices(price_list, models=[obj])
    return {
        "price_list": price_list,
        "planned": planned,
        "upstream_model": obj.current.upstream_model if obj.current else "",
        "preview": preview(_new_prices(planned)) if planned else None,
    }


@admin.register(Model)
class ModelAdmin(ServiceAdmin):
    view_permission, manage_permission = "model.view", "model.manage"
    project_path = None
    form = ModelForm
    list_display = ("slug", "provider", "upstream_model", "version", "context_window", "price_now", "state")
    list_filter = ("current__provider", PricedFilter)
    list_select_related = ("current__provider",)
    search_fields = ("slug", "current__upstream_model")
    list_before_template = "providers/models_note.html"
    change_form_before_template = "base/draft_note.html"
    inlines = (PricesInline, VersionsInline)
    actions_list = ("from_a_list",)
    actions_detail = ("price", "listed_prices", "test_call", "archive", "restore")
    fieldsets = (
        (None, {"fields": ("slug", "provider", "upstream_model", "floats_reason")}),
        ("Tokens", {"fields": ("context_window", ("max_output_tokens", "default_max_output_tokens"))}),
        ("Calls", {"fields": ("parameters", "capabilities")}),
        ("On the record", {"fields": ("note",)}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("prices")

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        unpriced = list(unpriced_models().values_list("slug", flat=True)[:6])
        return super().changelist_view(request, {"unpriced": unpriced, **(extra_context or {})})

    _shown = ("slug", "provider", "upstream_model", "version", "context_window", "price_now", "state")

    def get_fieldsets(self, request: HttpRequest, obj: Model | None = None) -> Any:
        if obj is None:
            return (*self.fieldsets, ("Prices", {"fields": ("load_prices",)}))
        if self.has_change_permission(request, obj):
            return self.fieldsets
        # The rest stands in the table of versions below.
        return ((None, {"fields": self._shown}),)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        return ("slug",) if self.has_change_permission(request, obj) else self._shown

    def has_change_permission(self, request: HttpRequest, obj: Any | None = None) -> bool:
        return (obj is None or obj.archived_at is None) and super().has_change_permission(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Model:
        return services.create_model(actor, **data)

    def update(self, actor: Actor, obj: Model, data: dict[str, Any]) -> Model:
        note = data.pop("note")
        return services.pin_model(actor, model=obj, changes=data, note=note).model

    @display(description="provider", ordering="current__provider__slug")
    def provider(self, model: Model) -> str:
        return model.current.provider.slug if model.current else ""

    @display(description="model at the provider", ordering="current__upstream_model")
    def upstream_model(self, model: Model) -> str:
        return model.current.upstream_model if model.current else ""

    @display(description="version")
    def version(self, model: Model) -> int | None:
        return model.current.version if model.current else None

    @display(description="context window", ordering="current__context_window")
    def context_window(self, model: Model) -> str:
        return f"{model.current.context_window:,} tokens" if model.current else ""

    @display(description="USD per million, in / out")
    def price_now(self, model: Model) -> str:
        now = timezone.now()
        dated = sorted(model.prices.all(), key=lambda price: price.effective_from)
        known = {price.token_class: price.nano_per_million for price in dated if price.effective_from <= now}
        if not known:
            return "no price"
        return " / ".join(
            format_usd(known[name]) if name in known else "none" for name in ("input", "output")
        )

    @display(description="state", label={"in use": "success", "archived": "default"})
    def state(self, model: Model) -> str:
        return "archived" if model.archived_at is not None else "in use"

    @admin_action(
        label="Add price",
        question="What does {obj} cost, in USD per million tokens (or characters, seconds, images)?",
        permission="price.manage",
        form=PriceForm,
        template="providers/price.html",
    )
    def price(
        self, request: HttpRequest, actor: Actor, obj: Model, data: dict[str, Any]
    ) -> str | dict[str, Any]:
        return _priced(request, actor, obj, data)

    @admin_action(
        label="Load listed prices",
        question="Give {obj} the prices of the shipped list?",
        permission="price.manage",
        template="providers/price.html",
        facts=_planned_facts,
    )
    def listed_prices(self, request: HttpRequest, actor: Actor, obj: Model, data: dict[str, Any]) -> str:
        planned = services.plan_prices(shipped(), models=[obj])
        services.add_prices(actor, planned)
        if not planned:
            return f"Nothing to add: {obj} has every price that the list knows of it."
        return f"{len(planned)} prices of {obj} were added; they are charged once published."

    @admin_action(
        label="Test call",
        question="Make one small, real call of {obj} as it is drafted? It says hello, and takes at most half a minute.",
        template="providers/test_call.html",
        facts=_trial_facts,
        available=lambda model: model.archived_at is None and model.current_id is not None,
    )
    def test_call(self, request: HttpRequest, actor: Actor, obj: Model, data: dict[str, Any]) -> str:
        trial = services.try_model(actor, model=obj)
        if trial.state != ModelTrial.ANSWERED:
            # What was tried is on record; the page says it where the button was pressed.
            raise UnprocessableEntity(trial.told)
        return trial.told

    @admin_action(
        label="From a provider's list",
        question="Which models does a provider have? It is asked now, with its key in use.",
        form=ListForm,
        confirm="Ask the provider",
        shows=True,
        template="providers/listed.html",
    )
    def from_a_list(
        self, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]
    ) -> dict[str, Any]:
        return _listed_facts(actor, data["provider"], data["search"])

    @admin_action(
        label="Archive",
        question="Put {obj} away? It is left out of what is published next.",
        available=lambda model: model.archived_at is None,
    )
    def archive(self, request: HttpRequest, actor: Actor, obj: Model, data: dict[str, Any]) -> str:
        services.archive_model(actor, model=obj)
        return f"{obj} is archived."

    @admin_action(
        label="Restore",
        question="Bring {obj} back?",
        available=lambda model: model.archived_at is not None,
    )
    def restore(self, request: HttpRequest, actor: Actor, obj: Model, data: dict[str, Any]) -> str:
        services.unarchive_model(actor, model=obj)
        return f"{obj} is back as a draft."


def _priced(request: HttpRequest, actor: Actor, model: Model, data: dict[str, Any]) -> str | dict[str, Any]:
    """Adds a price, or shows what it would have meant for last month's traffic."""
    if "_preview" in request.POST:
        since = data["effective_from"] or timezone.now()
        return {"preview": preview([NewPrice(model, data["token_class"], data["usd_per_million"], since)])}
    price = _add_price(actor, model, data)
    usd, unit = format_usd(price.nano_per_million), unit_of(price.token_class)
    return f"{price} costs {usd} USD per million {unit}, once published."


@admin.register(Price)
class PriceAdmin(ServiceAdmin):
    """Prices are added and looked at; a correction is a later one."""

    view_permission, manage_permission = "model.view", "price.manage"
    project_path = None
    form = NewPriceForm
    list_display = ("model", "token_class", "usd", "effective_from", "source", "created_by")
    list_filter = ("token_class", "model")
    list_select_related = ("model",)
    search_fields = ("model__slug", "source")
    list_before_template = "base/draft_note.html"

    def get_fields(self, request: HttpRequest, obj: Price | None = None) -> tuple[str, ...]:
        if obj is None:
            return ("model", "token_class", "usd_per_million", "effective_from", "source")
        return ("model", "token_class", "usd", "effective_from", "source", "created_by", "created_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Price | None = None) -> tuple[str, ...]:
        return () if obj is None else self.get_fields(request, obj)

    def create(self, actor: Actor, data: dict[str, Any]) -> Price:
        return _add_price(actor, data["model"], data)

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponseBase:
        """The same page as a model's own "Add price": what the price would have meant can be seen first."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        return ask(
            self,
            request,
            work=self._priced,
            label="Add price",
            question="What does a model cost, in USD per million tokens (or characters, seconds, images)?",
            form=NewPriceForm,
            template="providers/price.html",
        )

    @staticmethod
    def _priced(
        admin: PriceAdmin, request: HttpRequest, actor: Actor, obj: None, data: dict[str, Any]
    ) -> str | dict[str, Any]:
        return _priced(request, actor, data["model"], data)

    @display(description="USD per million", ordering="nano_per_million")
    def usd(self, price: Price) -> str:
        return format_usd(price.nano_per_million)
