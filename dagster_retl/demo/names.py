"""Names as they are: in the scripts that people and companies write them in."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Country:
    """Where an account is: ISO code, and the words that its companies and people are named with.

    `companies` are patterns with `{}` for a word; `latin` says how its words look in an e-mail address.
    """

    code: str
    words: Sequence[str]
    latin: Sequence[str]
    companies: Sequence[str]
    first_names: Sequence[str]
    last_names: Sequence[str]


COUNTRIES: Sequence[Country] = (
    Country(
        "US",
        ("Juniper", "Lakeside", "Copper", "Blue Heron", "O'Neill & Sons", "Rock 'n' Roll"),
        ("juniper", "lakeside", "copper", "blueheron", "oneill", "rocknroll"),
        ("{} Logistics", "{} Labs, Inc.", "{} Coffee 🚀"),
        ("Grace", "Malik", "Ruth"),
        ("O'Brien", "Washington", "Nakamura-Lee"),
    ),
    Country(
        "DE",
        ("Müller", "Grün", "Weißbach", "Löwe"),
        ("mueller", "gruen", "weissbach", "loewe"),
        ("{} GmbH", "{} & Söhne KG", "{} Maschinenbau AG"),
        ("Jürgen", "Zoë", "Anke"),
        ("Groß", "Schäfer", "von der Mühle"),
    ),
    Country(
        "FR",
        ("Étoile", "Forêt", "Cœur", "Garçon"),
        ("etoile", "foret", "coeur", "garcon"),
        ("{} SARL", "Maison {}", "L’Atelier {}"),
        ("Chloé", "François", "Maëlle"),
        ("Lefèvre", "D’Arcy", "Gagné"),
    ),
    Country(
        "PL",
        ("Żubr", "Łódź", "Świt", "Źródło"),
        ("zubr", "lodz", "swit", "zrodlo"),
        ("{} Sp. z o.o.", "{} S.A."),
        ("Michał", "Małgorzata", "Łucja"),
        ("Wójcik", "Dąbrowska", "Żak"),
    ),
    Country(
        "UA",
        ("Зоря", "Калина", "Дніпро", "Сокіл"),
        ("zorya", "kalyna", "dnipro", "sokil"),
        ("ТОВ «{}»", "{} Груп"),
        ("Олена", "Тарас", "Їжакевич"),
        ("Шевченко", "Ґудзь", "Щербак"),
    ),
    Country(
        "GR",
        ("Αιγαίο", "Ήλιος", "Δελφοί", "Θάλασσα"),
        ("aigaio", "ilios", "delfi", "thalassa"),
        ("{} Α.Ε.", "{} Ναυτιλιακή"),
        ("Ελένη", "Γιώργος", "Ζωή"),
        ("Παπαδόπουλος", "Οικονόμου", "Βλάχου"),
    ),
    Country(
        "EG",
        ("النيل", "الأهرام", "القمر", "الواحة"),
        ("alnil", "alahram", "alqamar", "alwaha"),
        ("شركة {} للتجارة", "مجموعة {}"),
        ("ليلى", "عمر", "مريم"),
        ("حسن", "المصري", "إبراهيم"),
    ),
    Country(
        "IL",
        ("כרמל", "גליל", "שקד", "ירדן"),
        ("carmel", "galil", "shaked", "yarden"),
        ("{} בע״מ", "קבוצת {}"),
        ("נועה", "יוסף", "תמר"),
        ("לוי", "בן־דוד", "מזרחי"),
    ),
    Country(
        "CN",
        ("星辰", "华光", "长江", "金龙"),
        ("xingchen", "huaguang", "changjiang", "jinlong"),
        ("{}科技有限公司", "北京{}集团"),
        ("伟", "秀英", "𠮷芳"),
        ("王", "欧阳", "李"),
    ),
    Country(
        "JP",
        ("さくら", "富士", "アオゾラ", "みどり"),
        ("sakura", "fuji", "aozora", "midori"),
        ("株式会社{}", "{}商店", "{}ホールディングス"),
        ("花子", "健太", "さくら"),
        ("佐藤", "髙橋", "渡邊"),
    ),
    Country(
        "KR",
        ("한빛", "누리", "가온", "미래"),
        ("hanbit", "nuri", "gaon", "mirae"),
        ("주식회사 {}", "{}소프트"),
        ("지우", "민준", "서연"),
        ("김", "박", "남궁"),
    ),
    Country(
        "IN",
        ("गंगा", "सूर्य", "कमल", "शक्ति"),
        ("ganga", "surya", "kamal", "shakti"),
        ("{} उद्योग", "{} प्राइवेट लिमिटेड"),
        ("अनिता", "राहुल", "श्रेया"),
        ("शर्मा", "कुमारी", "द्विवेदी"),
    ),
    Country(
        "BR",
        ("Ipê", "São João", "Açaí", "Pão & Cia"),
        ("ipe", "saojoao", "acai", "paoecia"),
        ("{} Ltda.", "Grupo {} 🌱", "{} Comércio"),
        ("João", "Conceição", "Luís"),
        ("Gonçalves", "Araújo", "d’Ávila"),
    ),
)

BY_CODE: Mapping[str, Country] = {country.code: country for country in COUNTRIES}


@dataclass(frozen=True, slots=True)
class CompanyName:
    """The name of a company, its country, and the domain of its e-mail addresses."""

    name: str
    country: Country
    domain: str


def company(dice: random.Random, number: int) -> CompanyName:
    """A company; `number` keeps domains apart."""
    country = dice.choice(COUNTRIES)
    index = dice.randrange(len(country.words))
    name = dice.choice(country.companies).format(country.words[index])
    return CompanyName(name, country, f"{country.latin[index]}-{number}.example")


def person(dice: random.Random, country: Country) -> tuple[str, str]:
    """First and last name of somebody there."""
    return dice.choice(country.first_names), dice.choice(country.last_names)
