"""Language codes: the codes of ISO 639 that a build gives to documents."""

import re
from collections.abc import Sequence

CODE = "code"
"""Language code of programs."""
UNDETERMINED = "und"
"""Language code of texts whose language is not recognised."""
OF_SCRIPT = dict(
    pair.split("=")
    for pair in (
        "Jpan=ja Kore=ko Hans=zh Hant=zh Thai=th Laoo=lo Khmr=km Geor=ka Armn=hy Grek=el Taml=ta "
        "Telu=te Knda=kn Mlym=ml Gujr=gu Guru=pa Orya=or Sinh=si Thaa=dv Nkoo=nqo Cher=chr "
        "Olck=sat Mtei=mni Java=jv Bali=ban Sund=su Yiii=ii Vaii=vai"
    ).split()
)
"""For each script that is used by hardly more than one language, this language."""
OF_MODEL = (
    "af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb "
    "ckb co cs cv cy da de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom "
    "gu gv he hi hif hr hsb ht hu hy ia id ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw "
    "ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn mr mrj ms mt mwl my myv mzn nah nap "
    "nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue sa sah sc scn sco "
    "sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo wa "
    "war wuu xal xmf yi yo yue zh"
).split()
"""Languages of the fastText model lid.176.ftz."""
LANGUAGES = frozenset([*OF_MODEL, *OF_SCRIPT.values(), CODE, UNDETERMINED])
"""All languages that a document may have."""
_NAMES = dict(
    pair.split("=")
    for pair in (
        "arabic=ar chinese=zh czech=cs danish=da dutch=nl english=en finnish=fi french=fr "
        "german=de greek=el hebrew=he hindi=hi hungarian=hu indonesian=id italian=it japanese=ja "
        "korean=ko norwegian=no persian=fa polish=pl portuguese=pt romanian=ro russian=ru "
        "spanish=es swedish=sv thai=th turkish=tr ukrainian=uk vietnamese=vi "
        "العربية=ar 中文=zh čeština=cs dansk=da nederlands=nl suomi=fi français=fr francais=fr "
        "deutsch=de ελληνικά=el עברית=he हिन्दी=hi magyar=hu italiano=it 日本語=ja 한국어=ko "
        "norsk=no فارسی=fa polski=pl português=pt română=ro русский=ru español=es svenska=sv "
        "ไทย=th türkçe=tr українська=uk"
    ).split()
)
"""Codes of some languages by their names in English and in the language itself, for messages."""


def languages_remedy(names: Sequence[str]) -> str:
    """Return which codes to write in place of ``names``, which are no codes.

    >>> languages_remedy(["german", "EN-us"]), languages_remedy(["Deutsch"])
    ('write de,en', 'write de')
    """
    words = [re.split("[-_]", name.strip().lower())[0] for name in names]
    codes = [_NAMES.get(word, word) for word in words]
    if LANGUAGES.issuperset(codes):
        return f"write {','.join(codes)}"
    return f"the possible ISO 639 codes are {', '.join(sorted(LANGUAGES))}"
