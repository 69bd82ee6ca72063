from django.urls import path

from llmops.access import account_views as views
from llmops.access import passkey_views as passkeys

app_name = "account"

urlpatterns = [
    path("", views.account, name="account"),
    path("code/", views.code, name="code"),
    path("code/passkey/", passkeys.check, name="check_passkey"),
    path("code/passkey/options/", passkeys.ask, name="ask_passkey"),
    path("oidc/", views.oidc_start, name="oidc"),
    path("oidc/callback/", views.oidc_callback, name="oidc_callback"),
    path("passkeys/", passkeys.add, name="add_passkey"),
    path("passkeys/options/", passkeys.options, name="passkey_options"),
    path("passkeys/<uuid:passkey>/remove/", passkeys.remove, name="remove_passkey"),
    path("second-factor/", views.factor, name="factor"),
    path("second-factor/remove/", views.remove_factor, name="remove_factor"),
    path("second-factor/codes/", views.renew_codes, name="renew_codes"),
    path("sessions/end-others/", views.end_others, name="end_others"),
    path("sessions/<uuid:sign_in>/end/", views.end_session, name="end_session"),
]
